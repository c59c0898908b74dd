/**
 * The tokens of the ATerm form that derivations are written in: punctuation, and strings in double quotes with
 * `"`, `\`, newline, carriage return and tab escaped. Canonical form only: no white space, no other escape.
 * Format: `src/libstore/derivation/aterm.cc` in the Nix tree (`derivations.cc` up to 2.34).
 */

import { quote } from "./quote.ts";
import { atOnce, type Slices } from "./slices.ts";

/** A text that is not canonical ATerm, or holds more than is taken; says the byte offset. */
export class AtermError extends Error {
  override readonly name = "AtermError";
}

/**
 * Items of all lists together. Nothing that can be built comes near: the kernel takes a few megabytes of arguments and
 * environment, and each of them costs it more than ten bytes.
 */
export const MOST_ITEMS = 100_000;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** Bytes that are looked at one by one between two yields; of one string, no more are looked at without one. */
const BYTES_A_SLICE = 64 * 1024;
/** Bytes that are searched, which is fast, between two yields. */
const SEARCHED_A_SLICE = 1024 * 1024;
/** A string of which the end is looked for byte by byte. */
const SHORT = 64;
/** Items of a list between two yields. */
const ITEMS_A_SLICE = 256;

/** The byte that each letter behind a backslash stands for; 0 for those that may not stand there. */
const byteOfLetter = new Uint8Array(256);
for (const [character, letter] of ['""', "\\\\", "\nn", "\rr", "\tt"])
  byteOfLetter[letter!.charCodeAt(0)] = character!.charCodeAt(0);

const NEVER_AS_SUCH = [
  [0x0a, "a newline"],
  [0x0d, "a carriage return"],
  [0x09, "a tab"],
  [0x00, "a NUL"],
] as const;

/** A string in the text, between its quotes. */
export interface Span {
  readonly start: number;
  readonly end: number;
  readonly escapes: number;
}

/** Thrown when a string is too long to be looked at without a yield, and measured then. Not an error. */
const TOO_LONG_FOR_NOW = Object.freeze({ tooLongForNow: true });

/**
 * Reads tokens from a text, front to back, in time linear in its length. Tokens are taken at once, as most texts are short and
 * consist of many. A piece in which one turns out to take long is taken again once that was measured, slice by slice.
 */
export class AtermReader {
  private readonly bytes: Buffer;
  private at = 0;
  private items = 0;
  /** Bytes looked at one by one since the last yield. */
  private looked = 0;
  /** Where the string starts that is to be measured. */
  private toMeasure = -1;
  /** Of the long strings that were measured, by where they start. */
  private readonly measured = new Map<number, Span>();
  /** Where the next backslash at or after the position is; Infinity if there is none. */
  private backslash = -1;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }

  /** @throws AtermError if the text holds a byte that canonical ATerm never holds. */
  *refuseControlCharacters(): Slices<void> {
    for (let start = 0; start < this.bytes.length; start += SEARCHED_A_SLICE) {
      if (start > 0) yield;
      const part = this.bytes.subarray(start, start + SEARCHED_A_SLICE);
      for (const [byte, name] of NEVER_AS_SUCH) {
        const at = part.indexOf(byte);
        if (at >= 0)
          throw new AtermError(`Byte ${start + at} is ${name}, which this format never holds as such.`);
      }
    }
  }

  /** Takes exactly that text. @throws AtermError */
  expect(token: string): void {
    if (!this.skip(token)) throw this.error(`expected ${quote(token)}`);
  }

  /** Takes that text if it comes next. */
  skip(token: string): boolean {
    for (let i = 0; i < token.length; i++) if (this.bytes[this.at + i] !== token.charCodeAt(i)) return false;
    this.at += token.length;
    return true;
  }

  /** Takes a piece of the text by functions of this reader that take tokens at once. @throws AtermError */
  *piece<T>(take: () => T): Slices<T> {
    const before = this.at;
    try {
      return take();
    } catch (error) {
      return yield* this.again(error, before, take);
    }
  }

  /** Takes a piece again that was given up with this error. @throws AtermError, and the error if it is another one */
  private *again<T>(reason: unknown, before: number, take: () => T): Slices<T> {
    for (let error = reason; ; ) {
      if (error !== TOO_LONG_FOR_NOW) throw error;
      yield* this.measure(this.toMeasure);
      this.at = before;
      try {
        return take();
      } catch (next) {
        error = next;
      }
    }
  }

  /** Takes a string and says where it is. @throws AtermError */
  span(): Span {
    this.expect('"');
    const start = this.at;
    const close = this.nextQuote(start);
    if (close < 0) throw this.error("expected a string, which has no end");
    if (this.nextBackslash(start) > close) {
      this.at = close + 1;
      return { start, end: close, escapes: 0 };
    }
    return this.escapedSpan(start);
  }

  /** Takes a string of at most this many bytes. @throws AtermError */
  string(most: number): string {
    const before = this.at;
    const span = this.span();
    if (lengthOf(span) > most)
      throw this.expected(before, `of at most ${most} bytes, not of ${lengthOf(span)}`);
    if (span.escapes === 0) return this.bytes.toString("latin1", span.start, span.end);
    return atOnce(this.bytesOf(span)).toString("latin1");
  }

  /**
   * Takes a short string that Nix writes without escapes: a path, an output name, a hash, a system.
   * @throws AtermError
   */
  plainString(): string {
    const before = this.at;
    const span = this.span();
    const length = lengthOf(span);
    if (span.escapes > 0) throw this.expected(before, "without escapes");
    if (length > LONGEST_PLAIN)
      throw this.expected(before, `of at most ${LONGEST_PLAIN} bytes, not of ${length}`);
    return this.bytes.toString("latin1", span.start, span.end);
  }

  /** What a string says. Without escapes it is a part of the text, else a copy. */
  *bytesOf(span: Span): Slices<Buffer> {
    if (span.escapes === 0) return this.bytes.subarray(span.start, span.end);
    const said = Buffer.allocUnsafe(lengthOf(span));
    let length = 0;
    let next = span.start + BYTES_A_SLICE;
    for (let at = span.start; at < span.end; at++) {
      const byte = this.bytes[at]!;
      said[length++] = byte === BACKSLASH ? byteOfLetter[this.bytes[++at]!]! : byte;
      if (at < next) continue;
      next = at + BYTES_A_SLICE;
      yield;
    }
    return said;
  }

  /**
   * Takes a list in square brackets.
   * @param item takes an item, or its front, and returns what takes the rest
   * @throws AtermError
   */
  *list(item: () => Slices<void> | undefined): Slices<void> {
    this.expect("[");
    if (this.skip("]")) return;
    do {
      if (++this.items > MOST_ITEMS)
        throw this.error(`more than ${MOST_ITEMS} outputs, inputs, arguments and variables are not taken`);
      if (this.items % ITEMS_A_SLICE === 0 || this.looked > BYTES_A_SLICE) {
        this.looked = 0;
        yield;
      }
      // As `piece` does, without a generator for each of many items.
      const before = this.at;
      let rest: ReturnType<typeof item>;
      try {
        rest = item();
      } catch (error) {
        rest = yield* this.again(error, before, item);
      }
      if (rest) yield* rest;
    } while (this.skip(","));
    this.expect("]");
  }

  /** @throws AtermError unless everything was read. */
  end(): void {
    if (this.at !== this.bytes.length) throw this.error("expected the end");
  }

  /** An error about the current position. */
  error(what: string): AtermError {
    const next = quote(this.bytes.toString("latin1", this.at, this.at + 20));
    return new AtermError(
      `At byte ${this.at}: ${what}, found ${this.at < this.bytes.length ? next : "the end"}.`,
    );
  }

  private expected(before: number, what: string): AtermError {
    this.at = before;
    return this.error(`expected a string ${what}`);
  }

  private escapedSpan(start: number): Span {
    const measured = this.measured.get(start);
    const span = measured ?? this.escaped(start, 0, start, start + BYTES_A_SLICE);
    if (!("end" in span)) {
      this.toMeasure = start;
      throw TOO_LONG_FOR_NOW;
    }
    if (!measured) this.looked += span.end - start;
    this.at = span.end + 1;
    return span;
  }

  private *measure(start: number): Slices<void> {
    let reached: { readonly at: number; readonly escapes: number } = { at: start, escapes: 0 };
    for (;;) {
      const found = this.escaped(start, reached.escapes, reached.at, reached.at + BYTES_A_SLICE);
      if ("end" in found) {
        this.measured.set(start, found);
        return;
      }
      reached = found;
      yield;
    }
  }

  /**
   * Looks for the end of a string byte by byte, because a hostile text may be nothing but escapes.
   * @param from and `until`: the part of it that is looked at
   * @returns where it continues unless it ends there
   */
  private escaped(
    start: number,
    before: number,
    from: number,
    until: number,
  ): Span | { readonly at: number; readonly escapes: number } {
    const { bytes } = this;
    const { length } = bytes;
    let escapes = before;
    let at = from;
    for (; at < length && at < until; at++) {
      const byte = bytes[at]!;
      if (byte === QUOTE) return { start, end: at, escapes };
      if (byte !== BACKSLASH) continue;
      if (byteOfLetter[bytes[at + 1] ?? 0] === 0) {
        this.at = at;
        throw this.error('expected one of the escapes \\" \\\\ \\n \\r \\t');
      }
      escapes++;
      at++;
    }
    if (at < length) return { at, escapes };
    throw this.error("expected a string, which has no end");
  }

  /** Negative if there is none. Most strings are shorter than it takes to call what searches fast. */
  private nextQuote(from: number): number {
    const { bytes } = this;
    const near = Math.min(from + SHORT, bytes.length);
    for (let at = from; at < near; at++) if (bytes[at] === QUOTE) return at;
    return bytes.indexOf(QUOTE, near);
  }

  private nextBackslash(from: number): number {
    if (this.backslash < from) {
      const at = this.bytes.indexOf(BACKSLASH, from);
      this.backslash = at < 0 ? Number.POSITIVE_INFINITY : at;
    }
    return this.backslash;
  }
}

/** Store paths, hashes and names of outputs are shorter, and so are systems. Bytes. */
const LONGEST_PLAIN = 4096;

/** Bytes that a string says. */
export function lengthOf({ start, end, escapes }: Span): number {
  return end - start - escapes;
}
