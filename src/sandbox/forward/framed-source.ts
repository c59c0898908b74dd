/** The contents of a framed body as a source of bytes, for parsing. */
import type { ByteSource } from "../../protocol/byte-stream.ts";
import type { Body } from "./body.ts";
import { GrowingBuffer } from "./growing-buffer.ts";

export class FramedSource implements ByteSource {
  private readonly body: Body;
  private readonly arrived = new GrowingBuffer();

  constructor(body: Body) {
    this.body = body;
  }

  get available(): Buffer {
    return this.arrived.held;
  }

  consume(bytes: number): void {
    this.arrived.consume(bytes);
  }

  fill(): Promise<boolean> {
    return this.body.next((slice) => this.arrived.append(slice));
  }
}
