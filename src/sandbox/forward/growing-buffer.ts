/** Bytes that pile up until they are taken. They may come one by one, so the room for them grows by doubling. */
export class GrowingBuffer {
  /** What is held is between `start` and `end`. */
  private buffer: Buffer = Buffer.alloc(0);
  private start = 0;
  private end = 0;

  /** Valid until the next `append`. */
  get held(): Buffer {
    return this.buffer.subarray(this.start, this.end);
  }

  consume(bytes: number): void {
    this.start += bytes;
  }

  /** @param slice is copied */
  append(slice: Buffer): void {
    const held = this.end - this.start;
    if (held === 0) this.start = this.end = 0;
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
