/**
 * Reads whole messages from a source: at once if they are short and available, otherwise piece by piece as
 * they arrive.
 */
import { noPause, type Pace } from "../store/slices.ts";
import { type ByteSource, EndOfStream } from "./byte-stream.ts";
import type { Compiled } from "./compile.ts";
import { Decoder, UNDERFLOW } from "./wire.ts";

/** Bytes that are decoded in one go, unless a single string has more. That takes about a millisecond, whatever they are. */
const WINDOW = 32 * 1024;

/** What has a say in how much of a long message may be held. */
export interface Room {
  /**
   * Called before so many bytes of a message are held.
   * @returns undefined if that is in order; otherwise what to wait for, which may throw
   */
  reach(bytes: number): undefined | Promise<void>;
}

export interface ReaderOptions {
  /** Lets others run between the pieces of a long message. */
  readonly pace?: Pace;
  /** The longest list. */
  readonly mostElements?: number;
  /** Of a longer string, no more than its front is kept. Bytes. */
  readonly longestKept?: number;
  /** Not asked about messages that have arrived in full when they are read, and are shorter than `WINDOW`. */
  readonly room?: Room;
}

export class MessageReader {
  readonly source: ByteSource;
  /** Bytes of all messages so far. */
  consumed = 0;
  private readonly decoder: Decoder;
  private readonly pace: Pace;
  private readonly room: Room | undefined;

  /** @param limit the longest message, in bytes */
  constructor(
    source: ByteSource,
    limit: number,
    { pace = noPause, mostElements, longestKept, room }: ReaderOptions = {},
  ) {
    this.source = source;
    this.pace = pace;
    this.room = room;
    this.decoder = new Decoder(limit, mostElements, longestKept);
  }

  /**
   * @returns undefined when the stream ended before the first byte of the message.
   * @throws WireError when the bytes are not such a message; EndOfStream when it ends half-way.
   */
  async readOrEnd<T>(codec: Compiled<T>): Promise<T | undefined> {
    while (this.source.available.length === 0) if (!(await this.source.fill())) return undefined;
    return this.read(codec);
  }

  /**
   * Like `readOrEnd`, but the end of the stream is an error, too.
   * @returns the message itself if it has arrived: nothing has to be waited for then
   */
  read<T>(codec: Compiled<T>): T | Promise<T> {
    // Trying in vain costs more than reading most messages.
    if (this.source.available.length < codec.least) return this.readGradually(codec);
    this.look(0, WINDOW);
    try {
      const value = codec.decode(this.decoder);
      this.consume();
      return value;
    } catch (error) {
      if (error !== UNDERFLOW) throw error;
    }
    return this.readGradually(codec);
  }

  private async readGradually<T>(codec: Compiled<T>): Promise<T> {
    const { source, pace, room } = this;
    let before = 0;
    this.look(before, WINDOW);
    const reading = codec.read(this.decoder);
    for (;;) {
      const step = reading.next();
      before += this.consume();
      if (step.done) return step.value;
      const waiting = room?.reach(before + step.value);
      if (waiting) await waiting;
      if (pace.due) await pace.pause();
      while (source.available.length < step.value)
        if (!(await source.fill(step.value))) throw new EndOfStream();
      this.look(before, Math.max(WINDOW, step.value));
    }
  }

  /** Gives the decoder the available bytes, up to the amount that it may look at in one go. */
  private look(before: number, window: number): void {
    const { available } = this.source;
    this.decoder.reset(available.length > window ? available.subarray(0, window) : available, before);
  }

  /** Discards what was decoded. @returns how many bytes that was */
  private consume(): number {
    const { offset } = this.decoder;
    this.source.consume(offset);
    this.consumed += offset;
    return offset;
  }
}
