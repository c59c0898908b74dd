/** Opens Unix sockets to listen on, without taking over anybody else's. */

import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, lstatSync, mkdirSync, renameSync, rmSync, type Stats } from "node:fs";
import net from "node:net";
import { dirname, join } from "node:path";
import { getSystemErrorMessage } from "node:util";
import { acceptedStream, type ByteStream, type ByteStreamOptions } from "./socket.ts";

/** Bytes of `sun_path` without the NUL at its end. */
const MAX_SOCKET_PATH = 107;
/** Connections the kernel holds until they are accepted. */
const BACKLOG = 1024;

export class ListenError extends Error {
  readonly code: "busy" | "not-a-socket" | "too-long" | "system";

  constructor(code: ListenError["code"], message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "ListenError";
    this.code = code;
  }
}

export interface SocketFileOptions {
  /** Access bits of the socket file; connecting needs the write bit. Default 0660. */
  mode?: number;
  /** Owner and group of the socket file; ours by default. */
  uid?: number;
  gid?: number;
  /** Called when a connection could not be accepted; it is then closed. */
  onAcceptError?: (error: Error) => void;
}

export interface ListenOptions extends SocketFileOptions {
  /** Of every accepted stream. */
  stream?: ByteStreamOptions;
}

/** Called with each accepted connection. */
export type OnStream = (stream: ByteStream) => void;

/** A socket that is listened on. */
export class Listener {
  /** Undefined for a socket that was passed to us. */
  readonly path: string | undefined;
  private readonly server: net.Server;
  private readonly inode: Stats | undefined;

  constructor(server: net.Server, path?: string) {
    this.server = server;
    this.path = path;
    this.inode = path === undefined ? undefined : lstatSync(path);
  }

  /** Stops accepting; removes the socket file if it is still ours. Accepted streams stay open. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    // Its whole folder may be disappearing at this moment.
    if (this.path !== undefined && this.isOurs(this.path)) rmSync(this.path, { force: true });
    await closed;
  }

  private isOurs(path: string): boolean {
    const now = lstatSync(path, { throwIfNoEntry: false });
    return now !== undefined && now.ino === this.inode?.ino && now.dev === this.inode.dev;
  }
}

function makeServer(onStream: OnStream, options: ListenOptions): net.Server {
  return net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    let stream: ByteStream;
    try {
      stream = acceptedStream(socket, options.stream);
    } catch (error) {
      socket.destroy();
      options.onAcceptError?.(error as Error);
      return;
    }
    onStream(stream);
  });
}

function start(
  server: net.Server,
  where: { path: string } | { fd: number },
  onAcceptError: ListenOptions["onAcceptError"],
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ ...where, backlog: BACKLOG }, () => {
      server.off("error", reject);
      // Without descriptors left, accepting fails: that must not end the service.
      server.on("error", (error) => onAcceptError?.(error));
      resolve();
    });
  });
}

/** Whether anybody accepts connections at a socket file. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = net.connect(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "ECONNREFUSED" || error.code === "ENOENT") resolve(false);
      // A full queue: somebody listens.
      else if (error.code === "EAGAIN") resolve(true);
      else reject(error);
    });
  });
}

async function checkFree(path: string): Promise<void> {
  const there = lstatSync(path, { throwIfNoEntry: false });
  if (there === undefined) return;
  if (!there.isSocket()) {
    throw new ListenError(
      "not-a-socket",
      `${path} exists and is not a socket; move it away or listen elsewhere.`,
    );
  }
  if (await answers(path)) {
    throw new ListenError("busy", `Another process listens on ${path}; stop it or listen elsewhere.`);
  }
}

/** @param temporary where the socket is made first */
function checkLength(path: string, temporary: string): void {
  const length = Buffer.byteLength(path);
  const excess = Buffer.byteLength(temporary) - MAX_SOCKET_PATH;
  if (length <= MAX_SOCKET_PATH && excess <= 0) return;
  const allowed = length > MAX_SOCKET_PATH ? MAX_SOCKET_PATH : length - excess;
  throw new ListenError(
    "too-long",
    `The path ${path} has ${length} bytes; a Unix socket here can have ${allowed}. Choose a shorter folder.`,
  );
}

/** Why there can be no socket at a path, without the temporary names that the system's own message has. */
function reasonAt(path: string, { code, errno, message }: NodeJS.ErrnoException): string {
  const folder = dirname(path);
  const known: Readonly<Record<string, string>> = {
    ENOENT: `its folder ${folder} does not exist; make it first`,
    ENOTDIR: `${folder} is not a folder`,
    EACCES: `this process (user ${process.getuid?.()}) may not create files in ${folder}`,
    EROFS: `${folder} is read-only for this process`,
  };
  if (code === undefined || errno === undefined) return message;
  return `${known[code] ?? getSystemErrorMessage(errno)} (${code})`;
}

/**
 * Listens on a path, as {@link serveOnPath} does, and passes on each connection as a byte stream.
 *
 * @throws ListenError
 */
export function listenOnPath(
  path: string,
  onStream: OnStream,
  options: ListenOptions = {},
): Promise<Listener> {
  return serveOnPath(path, makeServer(onStream, options), options);
}

/**
 * Makes a server listen on a path. The socket appears there in one step with its mode and owner; a socket
 * that nobody listens on any more is replaced.
 *
 * @throws ListenError when somebody else listens there, the path is no socket, is too long, or the system refuses.
 */
export async function serveOnPath(
  path: string,
  server: net.Server,
  options: SocketFileOptions = {},
): Promise<Listener> {
  // A folder that is closed to others, until the mode is right. Changing the process's umask instead would
  // also affect files that other parts of the service create at that moment, in libuv's threads.
  const folder = join(dirname(path), `.${randomBytes(3).toString("hex")}`);
  const temporary = join(folder, "s");
  checkLength(path, temporary);
  try {
    await checkFree(path);
    mkdirSync(folder, { mode: 0o700 });
    try {
      await start(server, { path: temporary }, options.onAcceptError);
      chmodSync(temporary, options.mode ?? 0o660);
      if (options.uid !== undefined || options.gid !== undefined) {
        chownSync(temporary, options.uid ?? -1, options.gid ?? -1);
      }
      renameSync(temporary, path);
    } catch (error) {
      // Closing removes the temporary name too.
      server.close();
      throw error;
    } finally {
      rmSync(folder, { recursive: true });
    }
    return new Listener(server, path);
  } catch (error) {
    if (error instanceof ListenError) throw error;
    throw new ListenError("system", `Cannot listen on ${path}: ${reasonAt(path, error as Error)}.`, {
      cause: error,
    });
  }
}

/**
 * Listens on a descriptor that was passed to us listening (see activation.ts).
 * @throws ListenError when the system refuses.
 */
export async function listenOnDescriptor(
  fd: number,
  onStream: OnStream,
  options: ListenOptions = {},
): Promise<Listener> {
  const server = makeServer(onStream, options);
  try {
    await start(server, { fd }, options.onAcceptError);
  } catch (error) {
    throw new ListenError("system", `Cannot listen on descriptor ${fd}: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  return new Listener(server);
}
