/** The contents of a framed body as a source of bytes, for what is parsed out of it. */
import type { ByteSource } from "../protocol/byte-stream.ts";
import type { Body } from "./body.ts";

export class FramedSource implements ByteSource {
  private readonly body: Body;
  private held: Buffer = Buffer.alloc(0);

  constructor(body: Body) {
    this.body = body;
  }

  get available(): Buffer {
    return this.held;
  }

  consume(bytes: number): void {
    this.held = this.held.subarray(bytes);
  }

  async fill(): Promise<boolean> {
    const pieces = this.held.length > 0 ? [this.held] : [];
    const more = await this.body.next((slice) => pieces.push(slice));
    this.held = pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
    return more;
  }
}
