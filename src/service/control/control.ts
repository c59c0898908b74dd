/**
 * The control channel between commands and the service: one request per connection, over node-ipc, on a Unix socket in
 * a folder that only the service's user (and an administrators' group) can enter. Never mounted into a sandbox.
 *
 * A peer has one request and some time to read the answer, then its connection is closed. Of more than a few connections
 * the oldest is closed.
 *
 * node-ipc is used here alone. Its parser `assured` limits frames, pending writes and incomplete frames, and
 * accepts only listed events; its default, `fast`, would buffer without limit. (Seen in node-ipc 14.0.0,
 * entities/EventParser.js.)
 */
import { chmodSync, chownSync, statSync } from "node:fs";
import type { Socket } from "node:net";
import { IPCModule, type Config as IpcConfig } from "node-ipc";
import { isOwnControlDir } from "../../config/places.ts";
import { FileLock } from "../../host/file-lock.ts";
import { makeFolders } from "../../host/make-folders.ts";
import { type ControlRequestName, type ControlRequests, controlRequestNames } from "./messages.ts";

/** The control channel cannot be opened or used. */
export class ControlError extends Error {
  override name = "ControlError";
  /**
   * `unreachable`: there is no service, or we may not talk to it. `refused`: it refused the request. `busy`: another
   * service answers there.
   */
  readonly code: "unreachable" | "refused" | "busy" | "system";

  constructor(code: ControlError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The service's answers. If a handler throws, the asker gets the error's message. */
export type ControlHandlers = {
  readonly [name in ControlRequestName]: (
    asks: unknown,
  ) => ControlRequests[name]["answer"] | Promise<ControlRequests[name]["answer"]>;
};

export interface ControlOptions {
  /** The folder of the socket; created if it does not exist. It must be ours, and gets mode 0700 or 0750. */
  readonly folder: string;
  /** A group whose members may use it as well. */
  readonly group: number | undefined;
  /** @returns why this peer may not use it, or undefined if it may */
  readonly refusal: (socket: Socket) => string | undefined;
  readonly handlers: ControlHandlers;
  readonly onProblem: (error: Error) => void;
}

export interface ControlServer {
  close(): void;
}

const ANSWER = "answer";
const REFUSED = "refused";
const MAX_MESSAGE = 4 * 1024 * 1024;
/** Requests name a sandbox at most; only answers are long. */
const MAX_REQUEST = 16 * 1024;
const MAX_CONNECTIONS = 16;
const INCOMPLETE_MS = 5000;
/** How long a peer may take from connecting to having read its answer. */
const CONNECTION_MS = 30_000;
/** How long one that was answered may take to hang up. */
const LINGER_MS = 1000;

/** The socket in the folder of the control channel. */
export function controlSocket(folder: string): string {
  return `${folder}/socket`;
}

function endpoint(folder: string, allowedEvents: readonly string[]): IPCModule {
  const ipc = new IPCModule();
  const settings: IpcConfig = {
    id: "nix-broker",
    socketRoot: folder,
    silent: true,
    parser: "assured",
    allowedEvents,
    maxMessageSize: MAX_MESSAGE,
    maxPendingBytes: 2 * MAX_MESSAGE,
    maxEventNameLength: 32,
    messageTimeout: INCOMPLETE_MS,
    // Those that made room are counted until they are closed.
    maxConnections: 4 * MAX_CONNECTIONS,
    maxRetries: 0,
    stopRetrying: true,
  };
  Object.assign(ipc.config, settings);
  return ipc;
}

/**
 * @throws ControlError `busy` when another service has this folder; `system`, saying what is wrong with the folder or
 * the group
 */
export async function serveControl(options: ControlOptions): Promise<ControlServer> {
  const { folder } = options;
  const lock = lockFolder(folder);
  try {
    const server = await serveLocked(options);
    return {
      close() {
        server.close();
        lock.release();
      },
    };
  } catch (error) {
    lock.release();
    throw systemError(folder, error as Error);
  }
}

/** node-ipc replaces a socket that is there, and removes what is there when it ends, whoever made it. */
function lockFolder(folder: string): FileLock {
  const path = `${folder}/lock`;
  let lock: FileLock | undefined;
  try {
    // Created here, so that a missing parent folder is reported as such.
    makeFolders(folder, 0o700);
    // In somebody else's, the name of the lock could lead to any file of ours.
    if (statSync(folder).uid !== process.getuid?.()) throw new Error("it belongs to another user");
    lock = FileLock.take(path);
  } catch (error) {
    throw systemError(folder, error as Error);
  }
  if (lock) return lock;
  throw new ControlError(
    "busy",
    `Another nix-broker (process ${FileLock.holder(path)?.pid ?? "unknown"}) has the control channel in ${folder}. ` +
      "Stop it, or give this one its own runtime.dir and runtime.state_dir (and runtime.control_dir, if that is set).",
  );
}

function systemError(folder: string, cause: Error): ControlError {
  return new ControlError(
    "system",
    `Cannot open the control channel in ${folder}: ${cause.message}. ` +
      "The folder must belong to the service's user (runtime.control_dir), and that user be a member of runtime.admin_group.",
    { cause },
  );
}

/** The folder's lock is ours. */
async function serveLocked(options: ControlOptions): Promise<ControlServer> {
  const { folder, group, refusal, handlers, onProblem } = options;
  const ipc = endpoint(folder, [...controlRequestNames, ANSWER, REFUSED]);
  // Those whose credentials were checked and accepted; nobody else's requests are acted on.
  const admitted = new WeakSet<Socket>();
  const started = Promise.withResolvers<void>();
  ipc.serve(controlSocket(folder), started.resolve);
  const { server } = ipc;
  server.on("error", (error) => {
    started.reject(error);
    onProblem(error);
  });
  const connected = new Set<Socket>();
  // Who is in a group may not be found out for a moment, for instance while there are no descriptors left.
  const refusalOf = (socket: Socket): string | undefined => {
    try {
      return refusal(socket);
    } catch (error) {
      onProblem(error as Error);
      return "it cannot be found out who you are; the service's log says why";
    }
  };
  server.on("connect", (socket) => {
    bound(socket, connected);
    const reason = refusalOf(socket);
    if (reason === undefined) admitted.add(socket);
    else {
      server.emit(socket, REFUSED, reason);
      finish(socket);
    }
  });
  for (const name of controlRequestNames)
    server.on(name, (asks, socket) => {
      if (!admitted.has(socket)) return;
      // One request per connection: nothing else that it sends is acted on.
      admitted.delete(socket);
      socket.pause();
      answer(server, socket, () => handlers[name](asks)).catch((error: Error) => {
        onProblem(error);
        socket.destroy();
      });
    });
  try {
    server.start();
    await started.promise;
    if (group !== undefined) openToGroup(folder, group);
  } catch (error) {
    server.stop();
    throw error;
  }
  return { close: () => server.stop() };
}

/** The folder last: until then nobody but us can reach the socket in it. */
function openToGroup(folder: string, group: number): void {
  chownSync(controlSocket(folder), -1, group);
  chmodSync(controlSocket(folder), 0o660);
  chownSync(folder, -1, group);
  chmodSync(folder, 0o750);
}

async function answer(
  server: IPCModule["server"],
  socket: Socket,
  handle: () => unknown | Promise<unknown>,
): Promise<void> {
  let event = ANSWER;
  let data: unknown;
  try {
    data = await handle();
  } catch (error) {
    event = REFUSED;
    data = (error as Error).message;
  }
  if (socket.destroyed) return;
  try {
    server.emit(socket, event, data);
  } catch (error) {
    server.emit(socket, REFUSED, `the answer cannot be sent: ${(error as Error).message}`);
  }
  finish(socket);
}

/** Whatever a peer does, or leaves undone, its connection ends, and so does what it may send. */
function bound(socket: Socket, connected: Set<Socket>): void {
  connected.add(socket);
  const [oldest] = connected;
  if (connected.size > MAX_CONNECTIONS) oldest?.destroy();
  // Not the socket's own timeout, which restarts with each byte.
  const deadline = setTimeout(() => socket.destroy(), CONNECTION_MS).unref();
  socket.on("data", () => {
    if (socket.bytesRead > MAX_REQUEST) socket.destroy();
  });
  socket.on("close", () => {
    connected.delete(socket);
    clearTimeout(deadline);
  });
}

/** Closes a connection once its peer has all that was written, and has hung up or had the time to. */
function finish(socket: Socket): void {
  socket.end(() => {
    socket.resume();
    const timer = setTimeout(() => socket.destroy(), LINGER_MS).unref();
    socket.on("close", () => clearTimeout(timer));
  });
}

/**
 * Asks the running service.
 * @throws ControlError `unreachable` when there is none or we may not reach it, `refused` with its message.
 */
export function askService<Name extends ControlRequestName>(
  folder: string,
  name: Name,
  asks: ControlRequests[Name]["asks"],
): Promise<ControlRequests[Name]["answer"]> {
  const ipc = endpoint(folder, [name, ANSWER, REFUSED]);
  const id = "service";
  return new Promise<ControlRequests[Name]["answer"]>((resolve, reject) => {
    ipc.connectTo(id, controlSocket(folder), () => {
      const service = ipc.of[id];
      service?.on("connect", () => service.emit(name, asks));
      service?.on(ANSWER, (data) => resolve(data as ControlRequests[Name]["answer"]));
      service?.on(REFUSED, (data) => reject(new ControlError("refused", String(data))));
      service?.on("error", (error) => reject(unreachable(folder, error)));
      service?.on("disconnect", () =>
        reject(new ControlError("unreachable", "The service closed the connection without an answer.")),
      );
    });
  }).finally(() => ipc.disconnect(id));
}

function unreachable(folder: string, error: NodeJS.ErrnoException): ControlError {
  const socket = controlSocket(folder);
  const start = isOwnControlDir(folder)
    ? "A jail needs no service; otherwise start one of your own (nix-broker serve)"
    : "Start the service (systemctl start nix-broker)";
  const why: Readonly<Record<string, string>> = {
    ENOENT: `nothing is at ${socket}. ${start}, or name its configuration with --config`,
    ECONNREFUSED: `nobody listens on ${socket}. ${start}`,
    EACCES: `this user may not reach ${socket}. Ask as root or as the service's user, or be a member of runtime.admin_group`,
  };
  const text = why[error.code ?? ""] ?? `${socket}: ${error.message}`;
  return new ControlError("unreachable", `The service cannot be reached: ${text}.`, { cause: error });
}
