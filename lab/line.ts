/** The connection of a raw client. */
import { once } from "node:events";
import net from "node:net";
import type { Duplex } from "node:stream";
import type { ByteSink, ByteSource } from "../src/protocol/byte-stream.ts";
import { labUser } from "./system.ts";

/** The bytes to and from a peer. `src/host/byte-stream.ts` is one. */
export interface Line extends ByteSource, ByteSink {
  destroy(): void;
  /** The peer has hung up, in case `write` does not report it. */
  readonly gone?: boolean;
}

/** Connects to a Unix socket as a user of the lab, without a word. */
export async function connectAs(path: string, user: string | number = "alice"): Promise<net.Socket> {
  const uid = typeof user === "number" ? user : labUser(user).uid;
  let socket: net.Socket;
  // The kernel notes the effective user at connect(2), which Node calls at once for such sockets.
  process.seteuid?.(uid);
  try {
    socket = net.connect({ path });
  } finally {
    process.seteuid?.(0);
  }
  await once(socket, "connect");
  // Later ones show as the end of the stream.
  socket.on("error", () => undefined);
  return socket;
}

/** The bytes of a socket, read on demand, and kept. */
export class PulledLine implements Line {
  available: Buffer = Buffer.alloc(0);
  /** All bytes that were consumed since they were taken last; undefined keeps none. */
  private seen: Buffer[] | undefined = [];
  private readonly socket: Duplex;
  private wake: () => void = () => undefined;

  constructor(socket: Duplex) {
    this.socket = socket;
    for (const event of ["readable", "end", "close"]) socket.on(event, () => this.wake());
  }

  get gone(): boolean {
    return this.socket.destroyed;
  }

  consume(bytes: number): void {
    this.seen?.push(Buffer.from(this.available.subarray(0, bytes)));
    this.available = this.available.subarray(bytes);
  }

  async fill(): Promise<boolean> {
    for (;;) {
      const chunk = this.socket.read() as Buffer | null;
      if (chunk) {
        this.available = this.available.length === 0 ? chunk : Buffer.concat([this.available, chunk]);
        return true;
      }
      if (this.socket.readableEnded || this.socket.destroyed) return false;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }

  /** To a peer that has hung up too: what it said before is still to be read. */
  async write(bytes: Buffer): Promise<void> {
    if (this.socket.destroyed) return;
    await new Promise<void>((resolve) => {
      this.socket.write(bytes, () => resolve());
    });
  }

  /** What was consumed since the last call. */
  takeSeen(): Buffer {
    const seen = Buffer.concat(this.seen ?? []);
    this.seen = [];
    return seen;
  }

  /** For bulk transfers: what comes is not kept. */
  keepNothing(): void {
    this.seen = undefined;
  }

  destroy(): void {
    this.socket.destroy();
  }
}
