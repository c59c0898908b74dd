/** The contents of a framed body as a source of bytes, for what is parsed out of it. */
import type { ByteSource } from "../../protocol/byte-stream.ts";
import type { Body } from "./body.ts";

export class FramedSource implements ByteSource {
  private readonly body: Body;
  /** What has arrived is between `start` and `end`. Frames may be of one byte each, so it grows by doubling. */
  private buffer: Buffer = Buffer.alloc(0);
  private start = 0;
  private end = 0;

  constructor(body: Body) {
    this.body = body;
  }

  get available(): Buffer {
    return this.buffer.subarray(this.start, this.end);
  }

  consume(bytes: number): void {
    this.start += bytes;
  }

  fill(): Promise<boolean> {
    return this.body.next((slice) => this.append(slice));
  }

  private append(slice: Buffer): void {
    const held = this.end - this.start;
    if (held === 0) {
      this.buffer = slice;
      this.start = 0;
      this.end = slice.length;
      return;
    }
    if (this.end + slice.length > this.buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(2 * held, held + slice.length));
      this.buffer.copy(larger, 0, this.start, this.end);
      this.buffer = larger;
      this.start = 0;
      this.end = held;
    }
    slice.copy(this.buffer, this.end);
    this.end += slice.length;
  }
}
