/**
 * The bulk data behind a request: passed on with back-pressure, collected within a limit, or read to its end
 * and dropped. A request that is refused must still be read to its end, or the next one would be read from
 * the middle of it.
 */
import { type ByteSource, EndOfStream } from "../../protocol/byte-stream.ts";
import { FrameWalker, frameHeader, frameLength, HEADER, OPENING } from "../../protocol/frames.ts";
import type { Body as BodyKind } from "../../protocol/operations.ts";
import { NarWalker } from "../../store/nar-walker.ts";
import { tooLong } from "../refusal.ts";
import type { RequestMemory } from "../request-memory.ts";
import { GrowingBuffer } from "./growing-buffer.ts";

/** What a body is read from. */
interface BodySource extends ByteSource {
  /** Reads in large pieces, or no longer. */
  bulk(on: boolean): void;
}

type Write = (bytes: Buffer) => undefined | Promise<void>;

export interface PassOptions {
  readonly write: Write;
  /** Called when all was written, and before it is waited for more. */
  readonly flush: () => undefined | Promise<void>;
  /** Sees the contents, slice by slice; throws to stop. */
  readonly onContents?: (slice: Buffer) => void;
  /** Called when all contents have been seen, before the end of the body is passed on; throws to withhold it. */
  readonly onEnd?: () => void;
  /** True when nobody wants the rest: upstream has answered. */
  readonly stopped: () => boolean;
}

export class Body {
  readonly kind: BodyKind;
  /** Longest body, in bytes. */
  readonly limit: number;
  private readonly source: BodySource;
  private readonly memory: RequestMemory;
  private waited = false;
  // Most requests have no body and need no walker.
  private readonly frames: FrameWalker | undefined;
  private readonly nar: NarWalker | undefined;

  /** @param source what it is read from, with large buffers as soon as more of it has to be waited for */
  constructor(kind: BodyKind, source: BodySource, limit: number, memory: RequestMemory) {
    this.kind = kind;
    this.source = source;
    this.memory = memory;
    this.limit = limit;
    this.frames = kind === "framed" ? new FrameWalker() : undefined;
    this.nar = kind === "nar" ? new NarWalker() : undefined;
  }

  get done(): boolean {
    return this.frames?.done ?? this.nar?.done ?? true;
  }

  /** Bytes of contents so far. */
  get length(): number {
    return this.frames?.length ?? this.nar?.length ?? 0;
  }

  /** Reads what is left and drops it. @throws WireError, NarError, EndOfStream */
  async drain(): Promise<void> {
    while (!this.done) {
      const taken = this.push(this.source.available);
      this.source.consume(taken);
      if (!this.done) await this.more();
    }
  }

  /** It is not read any more. */
  close(): void {
    if (this.waited) this.source.bulk(false);
  }

  /** Waits for more of it: most bodies have arrived with their requests. @throws EndOfStream */
  private async more(): Promise<void> {
    if (!this.waited) {
      this.waited = true;
      this.source.bulk(true);
    }
    if (!(await this.source.fill())) throw new EndOfStream();
  }

  /**
   * Takes the contents that have arrived, or waits for some.
   * @param take copies what it keeps; throws to stop
   * @returns false at the end of the body
   */
  async next(take: (slice: Buffer) => void): Promise<boolean> {
    let found = false;
    const watched = new Watched((slice) => {
      found = true;
      take(slice);
    });
    while (!found) {
      if (this.done) return false;
      this.source.consume(this.push(this.source.available, watched.see));
      watched.requireGood();
      if (!found && !this.done) await this.more();
    }
    return true;
  }

  /** Collects the contents. @throws Refusal beyond the limit, before the rest has been read. */
  async collect(limit: number): Promise<Buffer> {
    const collected = new GrowingBuffer();
    while (!this.done) {
      const waiting = this.memory.reach(this.length + this.source.available.length);
      if (waiting) await waiting;
      const taken = this.push(this.source.available, (slice) => collected.append(slice));
      this.source.consume(taken);
      if (this.length > limit) throw tooLong("textBytes", limit);
      if (!this.done) await this.more();
    }
    this.memory.arrived();
    return collected.held;
  }

  /**
   * Passes the body on as it is, checked. Frames keep their form, but for the first.
   * @throws Refusal beyond the limit, and whatever the options throw; the rest is then unread.
   */
  async pass({ write, flush, onContents, onEnd, stopped }: PassOptions): Promise<void> {
    this.memory.arrived();
    const watched = new Watched(onContents);
    if (this.frames) await this.passOpening(this.frames, write, watched);
    while (!this.done) {
      if (stopped()) return;
      const { available } = this.source;
      const taken = this.push(available, watched.see);
      // What has been walked over is consumed in any case: the rest will be drained from there.
      try {
        watched.requireGood();
        if (this.length > this.limit) throw tooLong("bodyBytes", this.limit);
        // The end is held back until everything has been checked: without it upstream does nothing.
        const held = this.done ? Math.min(HEADER, taken) : 0;
        const waiting = taken > held ? write(available.subarray(0, taken - held)) : undefined;
        if (waiting) await waiting;
        if (this.done) onEnd?.();
        if (held > 0) {
          const last = write(this.source.available.subarray(taken - held, taken));
          if (last) await last;
        }
      } finally {
        this.source.consume(taken);
      }
      const flushed = flush();
      if (flushed) await flushed;
      if (!this.done) await this.more();
    }
  }

  private async passOpening(frames: FrameWalker, write: Write, watched: Watched): Promise<void> {
    while (this.source.available.length < HEADER + OPENING) {
      const { available } = this.source;
      if (available.length >= HEADER && frameLength(available) <= OPENING) return;
      await this.more();
    }
    const first = this.source.available.subarray(0, HEADER + OPENING);
    const length = frameLength(first);
    if (length <= OPENING) return;
    frames.push(first, watched.see);
    const data = first.subarray(HEADER);
    try {
      watched.requireGood();
      await write(Buffer.concat([frameHeader(OPENING), data, frameHeader(length - OPENING)]));
    } finally {
      this.source.consume(HEADER + OPENING);
    }
  }

  private push(chunk: Buffer, onContents?: (slice: Buffer) => void): number {
    if (this.frames) return this.frames.push(chunk, onContents);
    const taken = this.nar?.push(chunk) ?? 0;
    onContents?.(chunk.subarray(0, taken));
    return taken;
  }
}

/** Keeps an error from checking the contents until the walker is past them: in between it cannot be stopped. */
class Watched {
  private readonly onContents: PassOptions["onContents"];
  private failure: { readonly error: unknown } | undefined;

  constructor(onContents: PassOptions["onContents"]) {
    this.onContents = onContents;
  }

  readonly see = (slice: Buffer): void => {
    if (this.failure) return;
    try {
      this.onContents?.(slice);
    } catch (error) {
      this.failure = { error };
    }
  };

  requireGood(): void {
    if (this.failure) throw this.failure.error;
  }
}
