/** The broker of one jail, in this process: an audit of its own, one sandbox, one socket. */
import { accessSync, constants, mkdtempSync, rmSync, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { connectionFolder } from "../audit/folders.ts";
import { claimConnection, removeOldConnections } from "../audit/old-connections.ts";
import { AuditStore } from "../audit/store.ts";
import type { Config } from "../config/config.ts";
import { newSandboxId } from "../contract/runtime-tree.ts";
import { type Listener, listenOnPath } from "../host/listen.ts";
import type { Profile } from "../policy/profile.ts";
import { CLIENT_STREAM } from "../sandbox/connection.ts";
import { AuditRecorder } from "../service/audit-recorder.ts";
import { Broker } from "../service/broker.ts";
import { noCounters } from "../service/counters.ts";
import { keepHeapSmall } from "../service/heap.ts";
import type { OutsidePath } from "../service/jail-home.ts";
import { AuditSummary } from "./summary.ts";

const DAY_MS = 86_400_000;

export interface JailBroker {
  readonly socket: string;
  /** The folder of its audit. */
  readonly audit: string;
  readonly summary: AuditSummary;
  /** Takes the socket away from the file system. Who has mounted it can go on connecting. */
  hide(): void;
  end(): Promise<void>;
}

/**
 * Where jails have their sockets while they start: no jail may see that, or it could put itself in the place of the next.
 * Not TMPDIR, which may be in a folder that another jail has.
 */
export function socketsFolder(): string {
  const own = process.env.XDG_RUNTIME_DIR;
  return own !== undefined && isOwn(own) ? own : "/tmp";
}

/** `su` and `sudo` may leave another user's in the environment. */
function isOwn(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK);
    return isAbsolute(folder) && statSync(folder).uid === process.getuid?.();
  } catch {
    return false;
  }
}

/**
 * @throws UpstreamError when the daemon cannot be used, AuditError when the audit cannot be written
 */
export async function startJailBroker(
  config: Config,
  profile: Profile,
  outsidePath: OutsidePath,
): Promise<JailBroker> {
  keepHeapSmall();
  const summary = new AuditSummary();
  removeOldConnections(config.audit.path, Date.now() - config.audit.retentionDays * DAY_MS);
  const audit = new AuditStore(connectionFolder(config.audit.path, newSandboxId()), {
    onWritten: (records) => summary.add(records),
  });
  claimConnection(audit.folder);
  const broker = new Broker(
    config,
    new AuditRecorder(audit, noCounters),
    noCounters,
    Number.POSITIVE_INFINITY,
  );
  let listener: Listener | undefined;
  let folder: string | undefined;
  const hide = (): void => {
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    folder = undefined;
  };
  const end = async (): Promise<void> => {
    await listener?.close();
    await broker.stop(0);
    hide();
    audit.close();
    // The summary is told of what was written a moment later.
    await new Promise(setImmediate);
    // Most jails of a program that makes many of them ask for nothing.
    if (summary.isEmpty) rmSync(audit.folder, { recursive: true, force: true });
  };
  try {
    await broker.pool.probe();
    folder = mkdtempSync(join(socketsFolder(), "nix-broker-jail-"));
    const socket = join(folder, "socket");
    const sandbox = broker.staticSandbox({ profile, view: "store", socket, outsidePath });
    // Whoever gets here is in the jail: the folder is open to its owner alone.
    listener = await listenOnPath(socket, (stream) => void broker.serve(stream, sandbox), {
      mode: 0o600,
      stream: CLIENT_STREAM,
    });
    return { socket, audit: audit.folder, summary, hide, end };
  } catch (error) {
    await end();
    throw error;
  }
}
