/** Sockets that systemd opened for us: the protocol of sd_listen_fds(3). */

import { AF_UNIX, SO_ACCEPTCONN, SO_DOMAIN, SO_TYPE, SOCK_STREAM, socketOption } from "./libc.ts";

const FIRST_DESCRIPTOR = 3;

export interface ActivatedSocket {
  readonly fd: number;
  /** `FileDescriptorName=` of the socket unit; "unknown" if it has none. */
  readonly name: string;
}

export class ActivationError extends Error {
  override readonly name = "ActivationError";
}

/**
 * The listening Unix sockets passed to this process, in their order; none if it was started otherwise. The
 * variables are removed from `environment`, so that no child takes them for its own.
 *
 * @throws ActivationError when a descriptor is something else than a listening Unix stream socket.
 */
export function takeActivatedSockets(environment: NodeJS.ProcessEnv = process.env): ActivatedSocket[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count, LISTEN_FDNAMES: names } = environment;
  delete environment.LISTEN_PID;
  delete environment.LISTEN_FDS;
  delete environment.LISTEN_FDNAMES;
  if (pid !== String(process.pid) || count === undefined) return [];
  if (!/^\d{1,4}$/.test(count)) {
    throw new ActivationError(`LISTEN_FDS is "${count}", which is not a valid number of descriptors.`);
  }
  const name = names?.split(":") ?? [];
  return Array.from({ length: Number(count) }, (_, index) => {
    const fd = FIRST_DESCRIPTOR + index;
    const listens =
      socketOption(fd, SO_DOMAIN) === AF_UNIX &&
      socketOption(fd, SO_TYPE) === SOCK_STREAM &&
      socketOption(fd, SO_ACCEPTCONN) === 1;
    if (!listens) {
      throw new ActivationError(
        `Descriptor ${fd}, passed by socket activation, is not a listening Unix stream socket; use ListenStream= with a path and Accept=no.`,
      );
    }
    return { fd, name: name[index] || "unknown" };
  });
}
