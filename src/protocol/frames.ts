/**
 * Framed bodies: pieces, each preceded by an eight-byte length, ended by a piece of length zero
 * (FramedSource and FramedSink in src/libutil/serialise.hh of the Nix tree, protocol 1.23).
 */
import { type ByteSource, EndOfStream } from "./byte-stream.ts";
import { WireError } from "./wire.ts";

/** The longest piece. Upstream allocates memory for a whole one; clients send 32 to 64 KiB. */
export const MAX_FRAME = 64 * 1024 * 1024;
/** Bytes of the length before a piece. */
export const HEADER = 8;
/** Bytes of the first piece that a daemon gets: see `FrameWriter`. */
export const OPENING = 2;

/** Finds the end of a framed body and the data in it, without copying. */
export class FrameWalker {
  /** The piece of length zero was seen. */
  done = false;
  /** Bytes of data so far, headers not counted. */
  length = 0;
  private left = 0;
  private readonly header = Buffer.alloc(HEADER);
  private have = 0;

  /**
   * @param onData called with each slice of data in `chunk`
   * @returns how many bytes of `chunk` belong to the body: all, unless it ended.
   * @throws WireError on a length above `MAX_FRAME`.
   */
  push(chunk: Buffer, onData?: (data: Buffer) => void): number {
    let at = 0;
    while (at < chunk.length && !this.done) {
      if (this.left > 0) {
        const taken = Math.min(this.left, chunk.length - at);
        onData?.(chunk.subarray(at, at + taken));
        this.left -= taken;
        this.length += taken;
        at += taken;
      } else if (this.have === 0 && chunk.length - at >= HEADER) {
        this.startFrame(chunk, at);
        at += HEADER;
      } else {
        const taken = Math.min(HEADER - this.have, chunk.length - at);
        chunk.copy(this.header, this.have, at, at + taken);
        this.have += taken;
        at += taken;
        if (this.have === HEADER) this.startFrame(this.header, 0);
      }
    }
    return at;
  }

  /** @param header holds the length, from `at` on */
  private startFrame(header: Buffer, at: number): void {
    this.left = frameLength(header, at);
    if (this.left > MAX_FRAME)
      throw new WireError(`a frame of ${this.left} bytes is longer than ${MAX_FRAME} bytes`);
    this.have = 0;
    this.done = this.left === 0;
  }
}

/** How long the next piece is. Far above what any has, the last digits are wrong. */
export function frameLength(header: Buffer, at = 0): number {
  return header.readUInt32LE(at + 4) * 0x1_0000_0000 + header.readUInt32LE(at);
}

/** Eight bytes that say how long the next piece is. */
export function frameHeader(length: number): Buffer {
  const header = Buffer.alloc(HEADER);
  header.writeUInt32LE(length, 0);
  return header;
}

export const END_OF_FRAMES = frameHeader(0);

/**
 * A body's bytes as they go to a daemon: in frames, the first of which has two bytes.
 *
 * A daemon that refuses a request before reading its body takes the frames for requests. No operation has the
 * number two, so such a daemon closes the connection instead of doing what a sandbox wrote there. (Data that
 * starts with a single byte gets a frame of one: to such a daemon that is IsValidPath of a path that starts
 * with a zero, the last byte of the next header, for which it closes the connection too.)
 */
export class FrameWriter {
  private opened = false;

  /** The pieces to write for `data`, in order; `data` itself is among them and is not copied. */
  frames(data: Buffer): Buffer[] {
    if (data.length === 0) return [];
    if (this.opened || data.length <= OPENING) {
      this.opened = true;
      return [frameHeader(data.length), data];
    }
    this.opened = true;
    const opening = Buffer.concat([
      frameHeader(OPENING),
      data.subarray(0, OPENING),
      frameHeader(data.length - OPENING),
    ]);
    return [opening, data.subarray(OPENING)];
  }
}

/** Reads the body at which a source stands to its end and discards it. */
export async function drainFrames(source: ByteSource, walker: FrameWalker): Promise<void> {
  for (;;) {
    source.consume(walker.push(source.available));
    if (walker.done) return;
    if (!(await source.fill())) throw new EndOfStream();
  }
}
