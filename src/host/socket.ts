/**
 * Fast byte streams over Unix sockets.
 *
 * Node reads into a buffer of ours, without an allocation per read, when a socket is created with `onread`.
 * For accepted sockets there is no documented way to do this: the server is created with `pauseOnConnect`,
 * the handle is taken from the socket that it created, and a new socket is created around it. `_handle` and
 * the option `handle` are undocumented, so they are used in this file only. (Seen in Node 24, lib/net.js and
 * lib/internal/stream_base_commons.js.)
 */

import { fstatSync } from "node:fs";
import net from "node:net";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { ByteStream, type ByteStreamOptions } from "./byte-stream.ts";
import { Inbox } from "./inbox.ts";
import { isHungUp, SO_SNDBUF, SOL_SOCKET, setsockopt } from "./libc.ts";
import { type PeerCredentials, peerCredentials } from "./peer-credentials.ts";

export { ByteStream, type ByteStreamOptions } from "./byte-stream.ts";

const BULK_SEND_BUFFER = 1024 * 1024;

interface Handle {
  readonly fd: number;
}

interface WithHandle {
  _handle: Handle | null;
}

/** The options of `net.Socket` with the undocumented one. */
interface HandleOptions extends net.SocketConstructorOpts {
  handle: never;
}

function handleOf(socket: net.Socket): Handle | null {
  return (socket as unknown as WithHandle)._handle;
}

/** Who is at the other end of a connected Unix socket. @throws PeerCredentialsError when it is not one, or is closed */
export function socketPeer(socket: net.Socket): PeerCredentials {
  return peerCredentials(handleOf(socket)?.fd ?? -1);
}

function takeHandle(socket: net.Socket): Handle {
  const holder = socket as unknown as WithHandle;
  const handle = holder._handle;
  if (handle === null) throw new Error("The accepted socket was closed before it could be used.");
  holder._handle = null;
  // Also removes it from the server's own count, so that the server can close while we still serve it.
  socket.destroy();
  return handle;
}

function enlargeSendBuffer(socket: net.Socket): void {
  const fd = handleOf(socket)?.fd ?? -1;
  if (fd < 0) return;
  const size = Buffer.alloc(4);
  size.writeInt32LE(BULK_SEND_BUFFER);
  // Best effort: the kernel caps it at net.core.wmem_max by itself.
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, size, size.length);
}

/** Makes a socket that reads into an inbox, and the byte stream on it. */
function streamOn(
  make: (onread: net.OnReadOpts) => net.Socket,
  options: ByteStreamOptions,
  output?: net.Socket,
): [net.Socket, ByteStream] {
  const inbox = new Inbox();
  let stream: ByteStream | undefined;
  const socket = make({
    buffer: () => inbox.arm(),
    callback: (count) => {
      inbox.received(count);
      return stream?.delivered() ?? true;
    },
  });
  const writable = output ?? socket;
  stream = new ByteStream(
    inbox,
    {
      readable: socket,
      writable,
      enlargeSendBuffer: () => enlargeSendBuffer(writable),
      isHungUp: () => isHungUp(handleOf(writable)?.fd ?? -1),
    },
    options,
  );
  return [socket, stream];
}

/**
 * The byte stream of a socket that a server made with `{ pauseOnConnect: true, allowHalfOpen: true }` has just accepted.
 * The given socket object must not be used afterwards.
 *
 * @throws PeerCredentialsError, after closing the socket, when it is not a Unix socket.
 */
export function acceptedStream(accepted: net.Socket, options: ByteStreamOptions = {}): ByteStream {
  const peer = options.peer ?? socketPeer(accepted);
  const handle = takeHandle(accepted);
  const [socket, stream] = streamOn(
    (onread) => {
      const withHandle: HandleOptions = { handle: handle as never, onread, allowHalfOpen: true };
      return new net.Socket(withHandle);
    },
    { ...options, peer },
  );
  socket.resume();
  return stream;
}

function connectOnce(path: string, options: ByteStreamOptions): Promise<ByteStream> {
  return new Promise((resolve, reject) => {
    const [socket, stream] = streamOn(
      (onread) => net.connect({ path, onread, allowHalfOpen: true }),
      options,
    );
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(stream);
    });
  });
}

/**
 * Connects to a Unix socket. A full listen queue (EAGAIN: nix-daemon's has 5 places up to 2.8) is tried again for
 * up to `patienceMs` milliseconds.
 * @throws the system error (ENOENT, ECONNREFUSED, EACCES, EAGAIN …).
 */
export async function connectStream(
  path: string,
  options: ByteStreamOptions & { patienceMs?: number } = {},
): Promise<ByteStream> {
  const deadline = performance.now() + (options.patienceMs ?? 2000);
  for (let pause = 1; ; pause = Math.min(pause * 2, 50)) {
    try {
      return await connectOnce(path, options);
    } catch (error) {
      const full = (error as NodeJS.ErrnoException).code === "EAGAIN";
      if (!full || performance.now() > deadline) throw error;
      await sleep(pause);
    }
  }
}

/** A byte stream over two streams, for example standard input and output. */
export function pairStream(
  readable: Readable,
  writable: Writable,
  options: ByteStreamOptions = {},
): ByteStream {
  const inbox = new Inbox();
  const descriptor = "fd" in writable && typeof writable.fd === "number" ? writable.fd : undefined;
  const stream = new ByteStream(
    inbox,
    { readable, writable, ...(descriptor !== undefined && { isHungUp: () => isHungUp(descriptor) }) },
    options,
  );
  readable.on("data", (chunk: Buffer) => {
    inbox.push(chunk);
    if (!stream.delivered()) readable.pause();
  });
  return stream;
}

function isPipeOrSocket(fd: number): boolean {
  const status = fstatSync(fd);
  return status.isFIFO() || status.isSocket();
}

/**
 * A byte stream over standard input and output, which nothing else in the process may use. Pipes and sockets, which is
 * what ssh gives, are as fast as any socket, and a reader who does not read never blocks the process (it would with
 * `process.stdout`).
 */
export function stdioStream(options: ByteStreamOptions = {}): ByteStream {
  if (!isPipeOrSocket(0) || !isPipeOrSocket(1)) return pairStream(process.stdin, process.stdout, options);
  const output = new net.Socket({ fd: 1, readable: false, writable: true, allowHalfOpen: true });
  const [, stream] = streamOn(
    (onread) => new net.Socket({ fd: 0, readable: true, writable: false, allowHalfOpen: true, onread }),
    options,
    output,
  );
  return stream;
}
