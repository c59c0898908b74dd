/** The static sockets: who may use them, and where they come from (the configuration, or the service manager). */
import { dirname } from "node:path";
import type { Config, ListenConfig } from "../config/config.ts";
import type { ActivatedSocket } from "../host/activation.ts";
import type { ByteStream } from "../host/byte-stream.ts";
import { type Listener, type ListenOptions, listenOnDescriptor, listenOnPath } from "../host/listen.ts";
import { makeFoldersBelow } from "../host/make-folders.ts";
import { UserDatabase } from "../host/users.ts";
import { CLIENT_STREAM } from "../sandbox/connection.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import type { Broker } from "./broker.ts";
import { type LinkerClient, LinkerError } from "./builds/linker-client.ts";
import type { BuildSandboxes } from "./builds/sandboxes.ts";
import type { Log } from "./log.ts";
import { PerUser } from "./per-user.ts";

export interface ListenerServices {
  readonly broker: Broker;
  readonly builds: BuildSandboxes;
  readonly linker: LinkerClient;
  readonly log: Log;
}

/** Anyone may connect, because the uid is checked afterwards: the socket's mode cannot name users. */
const SOCKET_MODE = 0o666;
/** Whoever mounts the folder into a sandbox has to find it. */
const FOLDER_MODE = 0o755;

/**
 * Opens every static socket. A socket passed by the service manager is used for the entry with its name,
 * which is the path (`FileDescriptorName=`), or otherwise in order.
 * @throws ListenError, UserDatabaseError
 */
export async function openListeners(
  config: Config,
  activated: readonly ActivatedSocket[],
  services: ListenerServices,
): Promise<Listener[]> {
  const { log } = services;
  const listeners: Listener[] = [];
  const left = [...activated];
  try {
    for (const entry of config.listen) {
      const onStream = admission(entry, services);
      const options: ListenOptions = {
        mode: SOCKET_MODE,
        stream: CLIENT_STREAM,
        onAcceptError: (error) =>
          log.warn({ socket: entry.path, error: error.message }, "cannot accept a connection"),
      };
      const passed = takeSocket(left, entry);
      if (!passed) makeFoldersBelow(config.runtime.dir, dirname(entry.path), FOLDER_MODE);
      listeners.push(
        passed
          ? await listenOnDescriptor(passed.fd, onStream, options)
          : await listenOnPath(entry.path, onStream, options),
      );
      log.info(
        {
          socket: entry.path,
          profile: entry.profile.name,
          view: entry.view,
          activated: passed !== undefined,
        },
        "listening",
      );
    }
  } catch (error) {
    await Promise.all(listeners.map((listener) => listener.close()));
    throw error;
  }
  for (const { name } of left)
    log.warn({ name }, "the service manager passed a socket that has no [[listen]] entry");
  return listeners;
}

function takeSocket(left: ActivatedSocket[], entry: ListenConfig): ActivatedSocket | undefined {
  const named = left.findIndex(({ name }) => name === entry.path);
  const at = named >= 0 ? named : left.findIndex(({ name }) => !name.startsWith("/"));
  return at < 0 ? undefined : left.splice(at, 1)[0];
}

/** Creates the sandbox of a static socket; the function that it returns decides about each client. */
function admission(entry: ListenConfig, services: ListenerServices): (stream: ByteStream) => void {
  const { broker, log } = services;
  const allowed = new UserDatabase().resolve(entry.allowUids);
  const { view, profile } = entry;
  const sandbox = broker.staticSandbox({
    profile,
    view: view === "build" ? "empty" : view,
    socket: entry.path,
  });
  const unidentified = new PerUser();
  return (stream) => {
    const uid = stream.peer?.uid ?? -1;
    if (!allowed.anyone && !allowed.uids.has(uid)) {
      log.warn({ socket: entry.path, uid }, "refused a user that allow_uids does not name");
      broker.refuse(stream, sandbox, `user ${uid} may not use this socket (allow_uids)`);
    } else if (view === "build") {
      // As many as its sandbox may have: a build that keeps connecting must not block others' access to the linker.
      const { connections } = broker.config.hooks.profile.limits;
      const identified = unidentified.enter(uid, connections);
      if (!identified) {
        sandbox.quota.onLimit("connections");
        const reason = `more than ${connections} clients of user ${uid} wait (limits.connections)`;
        broker.refuse(stream, sandbox, reason);
        return;
      }
      serveBuild(stream, sandbox, services, identified).catch((error: Error) => {
        log.error({ socket: entry.path, error: error.message }, "a client could not be served");
        stream.destroy();
      });
    } else void broker.serve(stream, sandbox);
  };
}

/**
 * Serves a client of a socket that all builds see: the linker, as root, finds out which build it runs in.
 * @param unknown the sandbox that refusals are recorded under
 * @param identified called when the build is known, or there is none
 */
async function serveBuild(
  stream: ByteStream,
  unknown: Sandbox,
  { broker, builds, linker }: ListenerServices,
  identified: () => void,
): Promise<void> {
  const { pid = -1, uid = -1 } = stream.peer ?? {};
  try {
    const find = async () => builds.find(await linker.identify(pid, uid));
    const sandbox = await find().finally(identified);
    if (!sandbox || !builds.admits(sandbox, uid))
      broker.refuse(stream, unknown, "this process is not part of a build that nix-broker knows");
    else await broker.serve(stream, sandbox);
  } catch (error) {
    if (!(error instanceof LinkerError)) throw error;
    broker.refuse(
      stream,
      unknown,
      `nix-broker serves this socket to builds that ask for it: ${error.message}`,
    );
  }
}
