/**
 * The primitives of the Nix worker protocol: little-endian 64-bit integers, and byte strings preceded by a
 * length and followed by zero padding to eight bytes (src/libutil/serialise.cc in the Nix tree).
 *
 * Everything here is synchronous and works on the available bytes. When they run out, `UNDERFLOW` is
 * thrown: one frozen value, because it is thrown on an ordinary path and a stack trace would cost more
 * than the decoding.
 */

/** What the peer sent is not the worker protocol, or exceeds a bound. The connection cannot go on. */
export class WireError extends Error {
  override name = "WireError";
}

/** The peer announced or sent more than a message may hold. */
export class TooLongError extends WireError {
  override name = "TooLongError";
}

/** Thrown by `Decoder` when the value continues beyond the available bytes. Not an error. */
export const UNDERFLOW = Object.freeze({ underflow: true });

const ZERO = Buffer.alloc(8);

/** Bytes of padding that follow a string of `length` bytes. */
export function padding(length: number): number {
  return (8 - (length & 7)) & 7;
}

/**
 * The most entries of a map. Nobody has that many settings or outputs, and growing a larger table, which
 * happens in one step, would block for too long.
 */
export const MOST_ENTRIES = 100_000;

/** @throws TooLongError on a string that is longer than a message may be. */
export function checkLength(length: number, limit: number): number {
  if (length > limit) throw new TooLongError(`a string of ${length} bytes is too long`);
  return length;
}

/** @throws TooLongError when a message is longer than it may be. */
export function checkSize(size: number, limit: number): void {
  if (size > limit) throw new TooLongError(`the message is longer than the limit of ${limit} bytes`);
}

/** 0 or 1. Nix takes any other number for 1 and never sends one. */
export function checkFlag(value: number): boolean {
  if (value > 1) throw new WireError(`a flag is ${value}, not 0 or 1`);
  return value === 1;
}

/** Reads values from a buffer, from front to back. */
/** Bytes of a long string that are read at once where only its front is kept. */
const PIECE = 16 * 1024;

export class Decoder {
  private buffer: Buffer = ZERO;
  private end = 0;
  /** Bytes of the message before the buffer. */
  private before = 0;
  /** Where the next value starts. */
  offset = 0;
  /** The longest message that is accepted, in bytes. */
  private readonly limit: number;
  private readonly mostElements: number;
  /** Of a longer string, no more than its front is kept. Bytes. */
  readonly longestKept: number;

  /**
   * @param mostElements of one list
   * @param longestKept of one string that is read while it arrives, in bytes
   */
  constructor(
    limit: number,
    mostElements = Number.POSITIVE_INFINITY,
    longestKept = Number.POSITIVE_INFINITY,
  ) {
    this.limit = limit;
    this.mostElements = mostElements;
    this.longestKept = longestKept;
  }

  /**
   * Starts at the front of `buffer`.
   * @param before how many bytes of the message were before it
   */
  reset(buffer: Buffer, before = 0): void {
    this.buffer = buffer;
    this.before = before;
    this.offset = 0;
    this.end = buffer.length;
  }

  /** Whether this many bytes are available. @throws TooLongError when the message would be longer than it may be */
  has(length: number): boolean {
    checkSize(this.before + this.offset + length, this.limit);
    return this.end - this.offset >= length;
  }

  /** @throws WireError above 2^53 - 1, which no length, size or flag of the protocol reaches. */
  u64(): number {
    const at = this.take(8);
    const high = this.buffer.readUInt32LE(at + 4);
    if (high > 0x1fffff) throw new WireError("a number in the message is too large");
    return high * 0x1_0000_0000 + this.buffer.readUInt32LE(at);
  }

  /** All 64 bits, for fields that use them (times, activity ids, "as much as there is"). */
  big(): bigint {
    return this.buffer.readBigUInt64LE(this.take(8));
  }

  /**
   * How many elements follow.
   *
   * @throws WireError on a count that is too large, TooLongError on one that no message can hold
   */
  count(): number {
    const count = this.u64();
    // No element is shorter than eight bytes.
    if (count > this.limit / 8) throw new TooLongError(`a list of ${count} elements is too long`);
    if (count > this.mostElements)
      throw new WireError(`a list has ${count} elements; at most ${this.mostElements} are accepted`);
    return count;
  }

  /**
   * How many entries follow.
   *
   * @throws WireError on a count that is too large, TooLongError on one that no message can hold
   */
  entries(): number {
    const count = this.count();
    if (count > MOST_ENTRIES)
      throw new WireError(`a map has ${count} entries; at most ${MOST_ENTRIES} are accepted`);
    return count;
  }

  /** Bytes of the next byte string, including its length and padding. Its length must be available. */
  stringSize(): number {
    const at = this.offset;
    const length = this.length();
    this.offset = at;
    return 8 + length + padding(length);
  }

  /** A byte string, one character a byte. */
  string(): string {
    const length = this.length();
    const at = this.padded(length);
    return this.buffer.toString("latin1", at, at + length);
  }

  /** The front of a byte string that is longer than is kept; the rest is read and dropped. Yields as `Compiled.read` does. */
  *frontOfString(): Generator<number, string, undefined> {
    const length = this.length();
    let front = "";
    for (let left = length + padding(length); left > 0; ) {
      const piece = Math.min(left, PIECE);
      while (!this.has(piece)) yield piece;
      const at = this.take(piece);
      const wanted = Math.min(piece, Math.min(length, this.longestKept) - front.length);
      front += this.buffer.toString("latin1", at, at + wanted);
      left -= piece;
    }
    return front;
  }

  /** A byte string as a copy of its own. */
  bytes(): Buffer {
    const length = this.length();
    const at = this.padded(length);
    return Buffer.from(this.buffer.subarray(at, at + length));
  }

  private length(): number {
    return checkLength(this.u64(), this.limit);
  }

  private padded(length: number): number {
    const at = this.take(length + padding(length));
    for (let i = at + length; i < this.offset; i++)
      if (this.buffer[i] !== 0) throw new WireError("the padding of a string is not zero");
    return at;
  }

  private take(length: number): number {
    const at = this.offset;
    if (!this.has(length)) throw UNDERFLOW;
    this.offset = at + length;
    return at;
  }
}

/** Builds one message; it grows as needed and is written in one piece. */
export class Encoder {
  private buffer = Buffer.allocUnsafe(256);
  private length = 0;

  u64(value: number): void {
    const at = this.grow(8);
    this.buffer.writeUInt32LE(value >>> 0, at);
    this.buffer.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4);
  }

  big(value: bigint): void {
    const at = this.grow(8);
    this.buffer.writeBigUInt64LE(BigInt.asUintN(64, value), at);
  }

  /** @param text one character a byte: characters above 0xff would lose bits and are a bug. */
  string(text: string): void {
    this.u64(text.length);
    const at = this.grow(text.length + padding(text.length));
    this.buffer.write(text, at, text.length, "latin1");
    this.pad(at + text.length);
  }

  bytes(bytes: Uint8Array): void {
    this.u64(bytes.length);
    const at = this.grow(bytes.length + padding(bytes.length));
    this.buffer.set(bytes, at);
    this.pad(at + bytes.length);
  }

  /** Bytes that are already in the form of the wire. */
  raw(bytes: Uint8Array): void {
    const at = this.grow(bytes.length);
    this.buffer.set(bytes, at);
  }

  /** Bytes of the message so far. */
  get size(): number {
    return this.length;
  }

  /** The message so far; the encoder starts a new one and never touches these bytes again. */
  finish(): Buffer {
    const message = this.buffer.subarray(0, this.length);
    this.buffer =
      this.buffer.length - this.length >= 256 ? this.buffer.subarray(this.length) : Buffer.allocUnsafe(1024);
    this.length = 0;
    return message;
  }

  /** Fills the last bytes with zeros: seven at most, for which a call out of JavaScript would take longer. */
  private pad(from: number): void {
    for (let at = from; at < this.length; at++) this.buffer[at] = 0;
  }

  /** Makes room, in a new buffer if the current one is full, and returns its position. */
  private grow(bytes: number): number {
    const at = this.length;
    const needed = at + bytes;
    if (needed > this.buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, this.buffer.length * 2));
      larger.set(this.buffer.subarray(0, at));
      this.buffer = larger;
    }
    this.length = needed;
    return at;
  }
}

/** Text for people (messages, reasons) as a byte string of the wire. */
export function toWireText(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}

/** What every encoding writes alike. */
const ASCII = /^[\0-\x7f]*$/;

/** A byte string of the wire as text for people; bytes that are not UTF-8 become U+FFFD. */
export function fromWireText(text: string): string {
  if (ASCII.test(text)) return text;
  return Buffer.from(text, "latin1").toString("utf8");
}
