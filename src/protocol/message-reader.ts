/** Reads whole messages from a source: at once where the bytes are at hand, else as they arrive. */
import { type ByteSource, EndOfStream } from "./byte-stream.ts";
import { type Compiled, Cursor } from "./compile.ts";
import { Decoder, UNDERFLOW, WireError } from "./wire.ts";

export class MessageReader {
  readonly source: ByteSource;
  /** The longest message, in bytes. */
  readonly limit: number;
  /** Bytes of all messages so far. */
  consumed = 0;
  private readonly decoder: Decoder;

  constructor(source: ByteSource, limit: number) {
    this.source = source;
    this.limit = limit;
    this.decoder = new Decoder(limit);
  }

  /**
   * @returns undefined when the stream ended before the first byte of the message.
   * @throws WireError when the bytes are not such a message; EndOfStream when it ends half-way.
   */
  async readOrEnd<T>(codec: Compiled<T>): Promise<T | undefined> {
    while (this.source.available.length === 0) if (!(await this.source.fill())) return undefined;
    return this.read(codec);
  }

  /** As `readOrEnd`, but the end of the stream is an error too. */
  async read<T>(codec: Compiled<T>): Promise<T> {
    const value = this.tryDecode(codec);
    if (value !== UNDERFLOW) return value as T;
    const cursor = new Cursor(this.source.available, this.limit);
    const measuring = codec.measure(cursor);
    while (!measuring.next().done) {
      if (!(await this.source.fill(cursor.bytes.length + 1))) throw new EndOfStream();
      cursor.bytes = this.source.available;
    }
    const whole = this.tryDecode(codec);
    if (whole === UNDERFLOW) throw new WireError("the message changed its length while it was read");
    return whole as T;
  }

  private tryDecode<T>(codec: Compiled<T>): T | typeof UNDERFLOW {
    this.decoder.reset(this.source.available);
    try {
      const value = codec.decode(this.decoder);
      this.source.consume(this.decoder.offset);
      this.consumed += this.decoder.offset;
      return value;
    } catch (error) {
      if (error === UNDERFLOW) return UNDERFLOW;
      throw error;
    }
  }
}
