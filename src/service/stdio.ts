/** One connection on standard input and output: an ssh forced command. One sandbox, which ends with it. */
import { connectionFolder } from "../audit/folders.ts";
import { claimConnection } from "../audit/old-connections.ts";
import { AuditStore } from "../audit/store.ts";
import type { Config } from "../config/config.ts";
import { newSandboxId } from "../contract/runtime-tree.ts";
import { pairStream } from "../host/socket.ts";
import type { Profile } from "../policy/profile.ts";
import { CLIENT_STREAM } from "../sandbox/connection.ts";
import { AuditRecorder } from "./audit-recorder.ts";
import { Broker } from "./broker.ts";
import { noCounters } from "./counters.ts";
import { refuseRoot } from "./refuse-root.ts";

/** @throws ServiceError for root, AuditError when the audit cannot be written. */
export async function serveStdio(config: Config, { profile }: { profile: Profile }): Promise<void> {
  refuseRoot(config);
  const metrics = noCounters;
  // The service keeps its own audit open, and other such commands theirs: each has its own folder.
  const audit = new AuditStore(connectionFolder(config.audit.path, newSandboxId()));
  claimConnection(audit.folder);
  const broker = new Broker(config, new AuditRecorder(audit, metrics), metrics, Number.POSITIVE_INFINITY);
  const sandbox = broker.staticSandbox({ profile, view: profile.view });
  const uid = process.getuid?.() ?? -1;
  const gid = process.getgid?.() ?? -1;
  const peer = { pid: process.ppid, uid, gid };
  const stream = pairStream(process.stdin, process.stdout, { ...CLIENT_STREAM, peer });
  await broker.serve(stream, sandbox);
  await broker.stop(0);
  audit.close();
}
