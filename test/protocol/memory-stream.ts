/** A byte source that hands out given chunks: what a socket would do, without one. */
import type { ByteSource } from "../../src/protocol/byte-stream.ts";

export class MemorySource implements ByteSource {
  available: Buffer = Buffer.alloc(0);
  /** How many bytes were consumed. */
  position = 0;
  private readonly chunks: Buffer[];
  /** Of the chunks, the first that was not handed out: `shift` moves all the others of a long array. */
  private next = 0;

  constructor(chunks: Iterable<Buffer>) {
    this.chunks = [...chunks].filter(({ length }) => length > 0);
  }

  consume(bytes: number): void {
    if (bytes > this.available.length) throw new RangeError("more was consumed than was there");
    this.available = this.available.subarray(bytes);
    this.position += bytes;
  }

  fill(): Promise<boolean> {
    const chunk = this.chunks[this.next];
    if (!chunk) return Promise.resolve(false);
    this.next += 1;
    this.available = this.available.length === 0 ? chunk : Buffer.concat([this.available, chunk]);
    return Promise.resolve(true);
  }

  bulk(): void {}

  /** What was neither consumed nor handed out. */
  get rest(): Buffer {
    return Buffer.concat([this.available, ...this.chunks.slice(this.next)]);
  }
}

/** `bytes` in pieces of `size`. */
export function pieces(bytes: Buffer, size: number): Buffer[] {
  const chunks: Buffer[] = [];
  for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.subarray(at, at + size));
  return chunks;
}

/** `bytes` cut at the given places, in any order. */
export function cutAt(bytes: Buffer, places: readonly number[]): Buffer[] {
  const cuts = [0, ...places.map((p) => p % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return cuts.slice(1).map((end, i) => bytes.subarray(cuts[i], end));
}

/** Eight bytes, little-endian. */
export function word(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** A string as it lies on the wire, written here without the encoder under test. */
export function text(value: string): Buffer {
  const bytes = Buffer.from(value, "latin1");
  return Buffer.concat([word(bytes.length), bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8)]);
}
