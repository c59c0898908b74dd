/** A byte stream in both directions with synchronous access to what has arrived, over a socket or a pair of streams. */

import type { Readable, Writable } from "node:stream";
import { ByteStreamError } from "../protocol/byte-stream.ts";
import type { Inbox } from "./inbox.ts";
import type { PeerCredentials } from "./peer-credentials.ts";

/** The largest message that may be asked for in one piece, unless the stream is made with another bound. */
export const DEFAULT_MAX_BUFFER = 64 * 1024 * 1024;

/** What a ByteStream runs on. For a socket both are the same object. */
export interface Transport {
  readonly readable: Readable;
  readonly writable: Writable;
  /** Lets the kernel take more at once for bulk transfers. */
  enlargeSendBuffer?(): void;
  /** Whether the peer can neither send nor read any more. Without it, a peer that has ended its direction is taken for gone. */
  isHungUp?(): boolean;
}

export interface ByteStreamOptions {
  /** Upper bound of `fill(want)`, in bytes. */
  maxBuffer?: number;
  /** Who is at the other end, if that is known. */
  peer?: PeerCredentials | undefined;
}

interface Waiter {
  resolve(value: boolean): void;
  reject(error: Error): void;
}

const YES = Promise.resolve(true);
const NO = Promise.resolve(false);

/** A rejected promise that does not end the process when nobody looks at it. */
function failed<T>(error: Error): Promise<T> {
  const promise = Promise.reject<T>(error);
  promise.catch(() => {});
  return promise;
}

function fromSystem(error: NodeJS.ErrnoException): ByteStreamError {
  return new ByteStreamError(error.code ?? "unknown", error.message, { cause: error });
}

/**
 * Bytes in both directions. It keeps reading even if nobody consumes, until its bounded buffer is full, so
 * that it notices when the peer ends; then it stops reading until there is room again.
 *
 * One reader and one writer at a time: a second `fill()` before the first settled is an error.
 */
export class ByteStream {
  /** Who is at the other end of an accepted socket. */
  readonly peer: PeerCredentials | undefined;
  /** Resolves once both directions are closed, whatever the reason; never rejects. */
  readonly closed: Promise<void>;
  /** Called once when the peer will send nothing more, also while nobody reads. */
  onEnd: (() => void) | undefined;
  /** Called once when both directions are closed, with the error if that is why. */
  onClose: ((error?: Error) => void) | undefined;

  private readonly inbox: Inbox;
  private readonly readable: Readable;
  private readonly writable: Writable;
  private readonly transport: Transport;
  private readonly maxBuffer: number;
  private readonly written: (error?: Error | null) => void;
  private readonly oneObject: boolean;
  private reading = true;
  private sawEnd = false;
  private isClosed = false;
  private enlarged = false;
  private error: Error | undefined;
  private reader: Waiter | undefined;
  private writers: Waiter[] = [];

  /** `transport` puts what it reads into `inbox`, and says so by `delivered()`. */
  constructor(inbox: Inbox, transport: Transport, options: ByteStreamOptions = {}) {
    this.inbox = inbox;
    this.transport = transport;
    this.readable = transport.readable;
    this.writable = transport.writable;
    this.maxBuffer = options.maxBuffer ?? DEFAULT_MAX_BUFFER;
    this.peer = options.peer;
    // A failed write closes the stream, which rejects the writers.
    this.written = (error) => {
      if (!error) this.settleWriters();
    };
    this.oneObject = Object.is(this.readable, this.writable);
    this.closed = new Promise((resolve) => {
      let open = this.oneObject ? 1 : 2;
      const closedOne = (): void => {
        open -= 1;
        if (open > 0) return;
        this.close();
        resolve();
      };
      const fail = (error: Error): void => this.destroy(fromSystem(error));
      this.readable.on("error", fail).on("close", closedOne);
      if (!this.oneObject) this.writable.on("error", fail).on("close", closedOne);
    });
    this.readable.on("end", () => this.handleEnd());
  }

  /** The bytes received and not consumed: a view that is valid until the next `fill()` or `consume()`. May be empty. */
  get available(): Buffer {
    return this.inbox.available;
  }

  /** Bytes that were written but not yet taken by the kernel. */
  get writableLength(): number {
    return this.writable.writableLength;
  }

  /** Whether the peer has ended its direction (bytes may still be available). */
  get ended(): boolean {
    return this.sawEnd;
  }

  /** Whether the peer is gone: one that has only ended its direction may still read. */
  get hungUp(): boolean {
    if (this.isClosed || this.writable.destroyed) return true;
    return this.transport.isHungUp?.() ?? this.sawEnd;
  }

  /**
   * Drops the first `count` bytes of `available`.
   * @throws RangeError if there are not that many.
   */
  consume(count: number): void {
    this.inbox.consume(count);
    if (!this.reading) this.resume();
  }

  /**
   * Resolves to true when bytes are available that were not when `available` was last looked at, to false at the end of
   * the stream.
   *
   * @param want lets the buffer grow to this many bytes, for a message that must be in one piece. It may still take
   *   several calls until they are there.
   * @throws ByteStreamError "too-long" if `want` exceeds the bound, "busy" if another fill() waits, or the code of the socket's error.
   */
  fill(want = 0): Promise<boolean> {
    if (want > this.maxBuffer) {
      const message = `A message of ${want} bytes was asked for in one piece; the bound is ${this.maxBuffer} bytes.`;
      return failed(new ByteStreamError("too-long", message));
    }
    if (this.reader !== undefined) {
      return failed(new ByteStreamError("busy", "Two readers wait for the same byte stream."));
    }
    const more = this.inbox.hasUnseen;
    this.inbox.allow(want);
    this.inbox.gather();
    if (!this.reading) this.resume();
    if (more) return YES;
    if (this.error !== undefined) return failed(this.error);
    if (this.sawEnd || this.isClosed) return NO;
    if (!this.inbox.hasRoom) {
      const held = this.inbox.pending;
      const message = `${held} bytes are available and none were consumed; ask for more with fill(want).`;
      return failed(new ByteStreamError("too-long", message));
    }
    return new Promise((resolve, reject) => {
      this.reader = { resolve, reject };
    });
  }

  /** Before and after a bulk transfer: private buffers, and a larger send buffer in the kernel (which stays). */
  bulk(on: boolean): void {
    this.inbox.setBulk(on);
    if (on && !this.enlarged) {
      this.enlarged = true;
      this.transport.enlargeSendBuffer?.();
    }
  }

  /**
   * Writes all of `bytes`. Returns undefined when the kernel took them at once: the memory may be reused. Otherwise
   * a promise that resolves when all that was written so far has been taken, and rejects if the stream closes first.
   */
  write(bytes: Buffer): undefined | Promise<void> {
    const writable = this.writable;
    if (writable.destroyed || writable.writableEnded) {
      return failed(this.error ?? new ByteStreamError("closed", "The byte stream is closed for writing."));
    }
    writable.write(bytes, this.written);
    if (writable.writableLength === 0) return undefined;
    const taken = new Promise<boolean>((resolve, reject) => {
      this.writers.push({ resolve, reject });
    }).then(() => undefined);
    taken.catch(() => {});
    return taken;
  }

  /** Ends our direction once everything written is out; the peer may still send. */
  end(): void {
    this.writable.end();
  }

  /** Closes both directions at once. Waiting readers and writers fail with `error`, or with "closed". */
  destroy(error?: Error): void {
    this.error ??= error;
    this.readable.destroy();
    if (!this.oneObject) this.writable.destroy();
  }

  /**
   * For the transport: bytes were put into the inbox. Returns whether reading may go on; when it returns false the
   * transport must have stopped, and is resumed by its `resume()`.
   */
  delivered(): boolean {
    const reader = this.reader;
    if (reader !== undefined) {
      this.reader = undefined;
      this.inbox.gather();
      reader.resolve(true);
    }
    this.reading = this.inbox.hasRoom;
    return this.reading;
  }

  private resume(): void {
    if (!this.inbox.hasRoom || this.sawEnd || this.isClosed) return;
    this.reading = true;
    this.readable.resume();
  }

  private settleWriters(): void {
    if (this.writers.length === 0 || this.writable.writableLength > 0) return;
    const writers = this.writers;
    this.writers = [];
    for (const writer of writers) writer.resolve(true);
  }

  private handleEnd(): void {
    this.sawEnd = true;
    const reader = this.reader;
    this.reader = undefined;
    reader?.resolve(false);
    this.onEnd?.();
  }

  private close(): void {
    this.isClosed = true;
    const reader = this.reader;
    const writers = this.writers;
    this.reader = undefined;
    this.writers = [];
    if (reader !== undefined) {
      if (this.error === undefined) reader.resolve(false);
      else reader.reject(this.error);
    }
    if (writers.length > 0) {
      const reason =
        this.error ?? new ByteStreamError("closed", "The byte stream was closed before all was written.");
      for (const writer of writers) writer.reject(reason);
    }
    this.onClose?.(this.error);
  }
}
