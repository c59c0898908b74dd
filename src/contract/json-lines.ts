/** Splits a stream of bytes into lines of bounded length. */
export class JsonLines {
  private rest: Buffer = Buffer.alloc(0);
  private readonly limit: number;

  /** @param limit bytes of the longest line, without its end */
  constructor(limit: number) {
    this.limit = limit;
  }

  /**
   * @returns the lines that are complete now
   * @throws RangeError when a line is too long; the stream cannot go on
   */
  push(chunk: Buffer): string[] {
    const bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    const lines: string[] = [];
    let start = 0;
    for (let end = bytes.indexOf(0x0a); end >= 0; end = bytes.indexOf(0x0a, start)) {
      if (end - start > this.limit) throw new RangeError(`a line is longer than ${this.limit} bytes`);
      lines.push(bytes.toString("utf8", start, end));
      start = end + 1;
    }
    this.rest = bytes.subarray(start);
    if (this.rest.length > this.limit) throw new RangeError(`a line is longer than ${this.limit} bytes`);
    return lines;
  }
}
