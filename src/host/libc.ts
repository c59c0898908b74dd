/** The few functions of the C library that Node does not offer, bound with koffi. Numbers are those of Linux. */

import { getSystemErrorName } from "node:util";
import koffi from "koffi";

const libc = koffi.load(null);

export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_CLOEXEC = 0o2000000;
export const MSG_DONTWAIT = 0x40;
export const MSG_NOSIGNAL = 0x4000;

export const SOL_SOCKET = 1;
export const SO_TYPE = 3;
export const SO_SNDBUF = 7;
export const SO_PEERCRED = 17;
export const SO_ACCEPTCONN = 30;
export const SO_DOMAIN = 39;

export const LOCK_EX = 2;
export const LOCK_NB = 4;

type GetSocketOption = (
  fd: number,
  level: number,
  option: number,
  value: Buffer,
  length: Int32Array,
) => number;
type SetSocketOption = (fd: number, level: number, option: number, value: Buffer, length: number) => number;
type MakeSocket = (domain: number, type: number, protocol: number) => number;
type SendTo = (
  fd: number,
  bytes: Buffer,
  length: number,
  flags: number,
  address: Buffer,
  addressLength: number,
) => number;

/** int getsockopt(int, int, int, void *, socklen_t *): 0, or -1 and errno. */
export const getsockopt: GetSocketOption = libc.func("getsockopt", "int", [
  "int",
  "int",
  "int",
  "void *",
  "void *",
]);

/** int setsockopt(int, int, int, const void *, socklen_t): 0, or -1 and errno. */
export const setsockopt: SetSocketOption = libc.func("setsockopt", "int", [
  "int",
  "int",
  "int",
  "void *",
  "uint32",
]);

/** int socket(int, int, int): a descriptor, or -1 and errno. */
export const socket: MakeSocket = libc.func("socket", "int", ["int", "int", "int"]);

/** ssize_t sendto(int, const void *, size_t, int, const struct sockaddr *, socklen_t): bytes, or -1 and errno. */
export const sendto: SendTo = libc.func("sendto", "int64", [
  "int",
  "void *",
  "size_t",
  "int",
  "void *",
  "uint32",
]);

const POLLERR = 0x8;
const POLLHUP = 0x10;
const POLLNVAL = 0x20;

const poll: (fds: Buffer, count: number, timeout: number) => number = libc.func("poll", "int", [
  "void *",
  "ulong",
  "int",
]);

/**
 * Whether nobody is at the other end of a socket or pipe any more. A peer that has only ended its own direction
 * (shutdown) is still there.
 */
export function isHungUp(fd: number): boolean {
  if (fd < 0) return true;
  // struct pollfd: int fd, short events, short revents. Hanging up and errors are told without being asked for.
  const pollfd = Buffer.alloc(8);
  pollfd.writeInt32LE(fd);
  return poll(pollfd, 1, 0) > 0 && (pollfd.readInt16LE(6) & (POLLERR | POLLHUP | POLLNVAL)) !== 0;
}

/** int flock(int, int): 0, or -1 and errno. */
export const flock: (fd: number, operation: number) => number = libc.func("flock", "int", ["int", "int"]);

const F_SETFD = 2;
const FD_CLOEXEC = 1;

const fcntl: (fd: number, command: number, type: "int", value: number) => number = libc.func(
  "int fcntl(int fd, int command, ...)",
);

/** Has a descriptor closed in programs that are started, except where one is given as such. One that is closed is none. */
export function closeOnExec(fd: number): void {
  fcntl(fd, F_SETFD, "int", FD_CLOEXEC);
}

/** The error of the last call that failed. */
export function lastErrno(): number {
  return koffi.errno();
}

/** The name ("ENOENT") of the error of the last call that failed. */
export function lastErrorName(): string {
  return getSystemErrorName(-koffi.errno());
}

/** An option of a socket whose value is one int, or undefined when the descriptor has no such option. */
export function socketOption(fd: number, option: number): number | undefined {
  const value = Buffer.alloc(4);
  const length = new Int32Array([value.length]);
  return getsockopt(fd, SOL_SOCKET, option, value, length) === 0 ? value.readInt32LE() : undefined;
}
