/** A lock on a file that goes with the process that holds it, however it ends (flock). */
import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import { getSystemErrorMessage } from "node:util";
import { flock, LOCK_EX, LOCK_NB, lastErrno } from "./libc.ts";

const MODE = 0o640;
/** EWOULDBLOCK */
const HELD = 11;

export interface LockHolder {
  readonly pid: number;
  /** It has been asked to end. */
  readonly stopping: boolean;
}

export class FileLock {
  private readonly fd: number;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /**
   * Makes the file if it is not there, and writes our process's number into it.
   * @returns undefined when another process holds it
   * @throws the system's error
   */
  static take(path: string): FileLock | undefined {
    // Opened for appending: what the holder wrote stays.
    const fd = openSync(path, "a", MODE);
    if (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
      const errno = lastErrno();
      closeSync(fd);
      if (errno === HELD) return undefined;
      throw new Error(`cannot lock ${path}: ${getSystemErrorMessage(-errno)}`);
    }
    const lock = new FileLock(fd);
    lock.write(`${process.pid}\n`);
    return lock;
  }

  /** What the file says of who took it last; undefined if that cannot be read. */
  static holder(path: string): LockHolder | undefined {
    try {
      const [, pid, stopping] = /^(\d+)( stopping)?\n$/.exec(readFileSync(path, "latin1")) ?? [];
      return pid === undefined ? undefined : { pid: Number(pid), stopping: stopping !== undefined };
    } catch {
      return undefined;
    }
  }

  /** Lets those that wait know that it will be released. */
  announceStop(): void {
    this.write(`${process.pid} stopping\n`);
  }

  /** The file stays: if it were removed, two processes could hold a lock of its name. */
  release(): void {
    closeSync(this.fd);
  }

  private write(text: string): void {
    ftruncateSync(this.fd);
    writeSync(this.fd, text);
  }
}
