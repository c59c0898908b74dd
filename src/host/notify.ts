/** Tells the service manager our state: the protocol of sd_notify(3) and sd_watchdog_enabled(3). */

import { closeSync } from "node:fs";
import {
  AF_UNIX,
  lastErrorName,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  sendto,
  socket,
} from "./libc.ts";

/** Bytes of `sun_path` in `struct sockaddr_un`. */
const MAX_PATH = 108;

export class NotifyError extends Error {
  override readonly name = "NotifyError";
}

/** `struct sockaddr_un` of a path, or of an abstract name, which starts with "@". */
function socketAddress(name: string): Buffer {
  const path = Buffer.from(name);
  if (path.length >= MAX_PATH) {
    throw new NotifyError(`NOTIFY_SOCKET has ${path.length} bytes; a socket address holds ${MAX_PATH - 1}.`);
  }
  const abstract = name.startsWith("@");
  const address = Buffer.alloc(2 + path.length + (abstract ? 0 : 1));
  address.writeUInt16LE(AF_UNIX, 0);
  path.copy(address, 2);
  if (abstract) address[2] = 0;
  return address;
}

/** The connection to the service manager. */
export class Notifier {
  /** How often `watchdog()` must be called at least, in milliseconds; undefined when no watchdog is set. */
  readonly watchdogMs: number | undefined;
  private readonly address: Buffer;

  private constructor(address: Buffer, watchdogMs: number | undefined) {
    this.address = address;
    this.watchdogMs = watchdogMs;
  }

  /**
   * Undefined when no service manager is listening. The variables are removed from `environment`, so that no
   * child speaks in our name.
   * @throws NotifyError when NOTIFY_SOCKET is neither an absolute path nor an abstract name.
   */
  static fromEnvironment(environment: NodeJS.ProcessEnv = process.env): Notifier | undefined {
    const { NOTIFY_SOCKET: name, WATCHDOG_USEC: interval, WATCHDOG_PID: pid } = environment;
    delete environment.NOTIFY_SOCKET;
    delete environment.WATCHDOG_USEC;
    delete environment.WATCHDOG_PID;
    if (name === undefined || name === "") return undefined;
    if (!/^[/@]./.test(name)) {
      throw new NotifyError(`NOTIFY_SOCKET is "${name}"; it must be an absolute path or start with "@".`);
    }
    const watched = /^[1-9]\d*$/.test(interval ?? "") && (pid === undefined || pid === String(process.pid));
    return new Notifier(socketAddress(name), watched ? Number(interval) / 1000 : undefined);
  }

  /** We serve. */
  ready(status?: string): NotifyError | undefined {
    return this.send(status === undefined ? "READY=1" : `READY=1\nSTATUS=${oneLine(status)}`);
  }

  /** We take up a new configuration; `ready` says when it is done. */
  reloading(): NotifyError | undefined {
    return this.send(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`);
  }

  /** We are about to stop. */
  stopping(): NotifyError | undefined {
    return this.send("STOPPING=1");
  }

  /** A line for `systemctl status`. */
  status(text: string): NotifyError | undefined {
    return this.send(`STATUS=${oneLine(text)}`);
  }

  /** We are alive. */
  watchdog(): NotifyError | undefined {
    return this.send("WATCHDOG=1");
  }

  /** Returned, not thrown: a manager that does not listen is no reason to stop serving. */
  private send(state: string): NotifyError | undefined {
    const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
      return new NotifyError(`Cannot create a socket to notify the service manager: ${lastErrorName()}.`);
    try {
      const bytes = Buffer.from(state);
      const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
      if (sendto(fd, bytes, bytes.length, flags, this.address, this.address.length) >= 0) return undefined;
      return new NotifyError(`Cannot notify the service manager: ${lastErrorName()}.`);
    } finally {
      closeSync(fd);
    }
  }
}

/** A newline would start another assignment. */
function oneLine(text: string): string {
  return text.replace(/[\r\n]+/g, " ");
}
