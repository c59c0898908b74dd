/** Who is at the other end of a Unix socket, as the kernel recorded it when the peer connected. */

import { getsockopt, lastErrorName, SO_PEERCRED, SOL_SOCKET } from "./libc.ts";

/** `struct ucred`, translated by the kernel into our own pid and user namespaces. */
export interface PeerCredentials {
  /** 0 when the peer's process is not visible from our pid namespace. */
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

export class PeerCredentialsError extends Error {
  override readonly name = "PeerCredentialsError";
}

/**
 * Reads SO_PEERCRED of a connected Unix socket.
 * @throws PeerCredentialsError when `fd` is not one.
 */
export function peerCredentials(fd: number): PeerCredentials {
  const credentials = Buffer.alloc(12);
  const length = new Int32Array([credentials.length]);
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length) !== 0) {
    throw new PeerCredentialsError(
      `Cannot tell who is at the other end of descriptor ${fd}: ${lastErrorName()}.`,
    );
  }
  return {
    pid: credentials.readInt32LE(0),
    uid: credentials.readUInt32LE(4),
    gid: credentials.readUInt32LE(8),
  };
}
