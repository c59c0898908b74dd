/**
 * The receiving half of a byte stream: where the next read goes, what has arrived, and what is left of it.
 *
 * Idle connections all read into one shared buffer, from which the few bytes of a request are copied into a small
 * buffer of their own. Bulk connections read into two large buffers in turn: while one is being consumed the
 * other is filled, nothing is copied, and reading stops when neither is free.
 *
 * What was handed out by `available` is never moved or overwritten before the next `consume()` or `gather()`:
 * an owner may be half-way through writing it elsewhere.
 */

/** Bytes of the buffer that all idle connections read into. */
const SHARED_BYTES = 64 * 1024;
/** The most bytes of one bulk read. */
const BULK_BYTES = 128 * 1024;
/** Room in front of a bulk read, into which an unconsumed rest is copied so that it is contiguous with what follows. */
const HEADROOM = 4 * 1024;
/** Unconsumed bytes at which reading stops, unless the owner waits for a longer message. */
const DEFAULT_LIMIT = 64 * 1024;
const SMALLEST_BUFFER = 1024;
/** An empty buffer of an idle connection is kept up to this size. */
const KEPT_BYTES = 4 * 1024;
/** Slabs kept for the next bulk transfer: enough for four at once in each direction. */
const MAX_SPARE_SLABS = 16;

const EMPTY = Buffer.alloc(0);
const shared = Buffer.allocUnsafeSlow(SHARED_BYTES);

/** A bulk buffer: `target` is the part that is read into, after the headroom. */
interface Slab {
  readonly whole: Buffer;
  readonly target: Buffer;
}

const spareSlabs: Slab[] = [];

function takeSlab(): Slab {
  const spare = spareSlabs.pop();
  if (spare !== undefined) return spare;
  const whole = Buffer.allocUnsafeSlow(HEADROOM + BULK_BYTES);
  return { whole, target: whole.subarray(HEADROOM) };
}

function releaseSlab(slab: Slab): void {
  if (spareSlabs.length < MAX_SPARE_SLABS) spareSlabs.push(slab);
}

function roundUp(bytes: number): number {
  let size = SMALLEST_BUFFER;
  while (size < bytes) size *= 2;
  return size;
}

export class Inbox {
  // The first run of bytes, the one that `available` shows.
  private buffer: Buffer = EMPTY;
  private start = 0;
  private end = 0;
  // A second run that arrived while the first was not consumed. Its buffer is EMPTY when there is none.
  private nextBuffer: Buffer = EMPTY;
  private nextStart = 0;
  private nextEnd = 0;

  private view: Buffer | undefined;
  /** The second run became the first, and has not been looked at since. */
  private unseen = false;
  private limit = DEFAULT_LIMIT;
  private bulk = false;
  private slabs: Slab[] = [];
  private armed: Slab | undefined;

  /** The bytes that arrived and were not consumed; may be empty. Valid until the next consume() or gather(). */
  get available(): Buffer {
    this.unseen = false;
    this.view ??= this.buffer.subarray(this.start, this.end);
    return this.view;
  }

  /** All bytes held, including those behind `available`. */
  get pending(): number {
    return this.end - this.start + (this.nextEnd - this.nextStart);
  }

  /** Whether there are bytes that the owner has not seen: behind `available`, or in its place since it was looked at. */
  get hasUnseen(): boolean {
    return this.hasMore || this.unseen;
  }

  /** Whether bytes have arrived behind `available`, so that gather() adds some at once. */
  get hasMore(): boolean {
    return this.nextEnd > this.nextStart;
  }

  /** Whether the armed target may be written to: false is back-pressure. */
  get hasRoom(): boolean {
    const armed = this.armed;
    if (armed !== undefined && (armed.whole === this.buffer || armed.whole === this.nextBuffer)) return false;
    return this.pending < this.limit;
  }

  /** Chooses where the next read goes. Called once before the first read and once after every read. */
  arm(): Buffer {
    this.armed = this.bulk ? this.freeSlab() : undefined;
    return this.armed?.target ?? shared;
  }

  /** Records that `count` bytes were read into the armed target. */
  received(count: number): void {
    const armed = this.armed;
    if (armed === undefined) this.append(shared.subarray(0, count));
    else if (this.hasMore) this.append(armed.target.subarray(0, count));
    else this.adopt(armed.whole, HEADROOM, HEADROOM + count);
  }

  /** Takes over a chunk that came in a buffer of its own. */
  push(chunk: Buffer): void {
    if (this.hasMore) this.append(chunk);
    else this.adopt(chunk, 0, chunk.length);
  }

  /**
   * Drops the first `count` bytes of `available`.
   * @throws RangeError if there are not that many.
   */
  consume(count: number): void {
    const start = this.start + count;
    if (count < 0 || start > this.end) {
      throw new RangeError(`Cannot consume ${count} bytes: ${this.end - this.start} are available.`);
    }
    this.start = start;
    this.view = undefined;
    if (start === this.end) this.advance();
  }

  /** Allows at least `want` bytes to be held, until `available` is fully consumed. */
  allow(want: number): void {
    this.limit = Math.max(DEFAULT_LIMIT, want);
  }

  /** Makes what arrived behind `available` part of it. */
  gather(): void {
    if (!this.hasMore) return;
    this.view = undefined;
    const rest = this.end - this.start;
    if (rest <= this.nextStart) {
      this.buffer.copy(this.nextBuffer, this.nextStart - rest, this.start, this.end);
      this.promoteNext(this.nextStart - rest);
    } else {
      const next = this.nextBuffer.subarray(this.nextStart, this.nextEnd);
      this.clearNext();
      this.appendToFirst(next);
    }
    this.releaseUnused();
  }

  /** Uses private buffers for what is read from now on, or the shared one. */
  setBulk(on: boolean): void {
    if (on === this.bulk) return;
    this.bulk = on;
    if (on) {
      while (this.slabs.length < 2) this.slabs.push(takeSlab());
    } else {
      this.releaseUnused();
    }
  }

  private freeSlab(): Slab | undefined {
    const free = this.slabs.find((slab) => slab.whole !== this.buffer && slab.whole !== this.nextBuffer);
    // If none is free, reading stops; the first run's buffer will be free first.
    return free ?? this.slabs.find((slab) => slab.whole === this.buffer);
  }

  private adopt(buffer: Buffer, start: number, end: number): void {
    if (this.start === this.end) {
      this.buffer = buffer;
      this.start = start;
      this.end = end;
      this.view = undefined;
    } else {
      this.nextBuffer = buffer;
      this.nextStart = start;
      this.nextEnd = end;
    }
  }

  private append(bytes: Buffer): void {
    if (!this.hasMore) {
      this.view = undefined;
      this.appendToFirst(bytes);
      return;
    }
    this.adopt(
      Buffer.concat([this.nextBuffer.subarray(this.nextStart, this.nextEnd), bytes]),
      0,
      this.nextEnd - this.nextStart + bytes.length,
    );
  }

  /** Copies bytes behind the first run: in place if there is room, else in a larger buffer. Old views stay intact. */
  private appendToFirst(bytes: Buffer): void {
    const held = this.end - this.start;
    if (held === 0) this.start = this.end = 0;
    if (this.end + bytes.length > this.buffer.length || this.isSlab(this.buffer)) {
      const larger = Buffer.allocUnsafeSlow(roundUp(held + bytes.length));
      this.buffer.copy(larger, 0, this.start, this.end);
      this.buffer = larger;
      this.start = 0;
      this.end = held;
    }
    bytes.copy(this.buffer, this.end);
    this.end += bytes.length;
  }

  /** The first run is consumed: continues with the second, or with nothing. */
  private advance(): void {
    this.limit = DEFAULT_LIMIT;
    if (this.hasMore) {
      this.promoteNext(this.nextStart);
      this.unseen = true;
    } else if (this.isSlab(this.buffer) || this.buffer.length > KEPT_BYTES) {
      this.buffer = EMPTY;
      this.start = this.end = 0;
    }
    if (this.slabs.length > 0) this.releaseUnused();
  }

  private promoteNext(start: number): void {
    this.buffer = this.nextBuffer;
    this.start = start;
    this.end = this.nextEnd;
    this.clearNext();
  }

  private clearNext(): void {
    this.nextBuffer = EMPTY;
    this.nextStart = this.nextEnd = 0;
  }

  private isSlab(buffer: Buffer): boolean {
    return this.slabs.some((slab) => slab.whole === buffer);
  }

  /** After a bulk transfer, gives back the slabs that neither hold bytes nor wait for a read. */
  private releaseUnused(): void {
    if (this.bulk) return;
    this.slabs = this.slabs.filter((slab) => {
      const used = slab === this.armed || slab.whole === this.buffer || slab.whole === this.nextBuffer;
      if (!used) releaseSlab(slab);
      return used;
    });
  }
}
