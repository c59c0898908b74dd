/**
 * The tokens of the ATerm form that derivations are written in: punctuation, and strings in double quotes with
 * `"`, `\`, newline, carriage return and tab escaped. Canonical form only: no white space, no other escape.
 * Format: `src/libstore/derivation/aterm.cc` in the Nix tree (`derivations.cc` up to 2.34).
 */

import { quote } from "./quote.ts";

/** A text that is not canonical ATerm; says the byte offset. */
export class AtermError extends Error {
  override readonly name = "AtermError";
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/** The letter that follows the backslash, for each byte that must be escaped; 0 for all others. */
const letterOfByte = new Uint8Array(256);
/** The byte that each such letter stands for; 0 for all others. */
const byteOfLetter = new Uint8Array(256);
for (const [character, letter] of ['""', "\\\\", "\nn", "\rr", "\tt"]) {
  letterOfByte[character!.charCodeAt(0)] = letter!.charCodeAt(0);
  byteOfLetter[letter!.charCodeAt(0)] = character!.charCodeAt(0);
}

/** Writes a string. */
export function atermString(value: string): string {
  if (!/["\\\n\r\t]/.test(value)) return `"${value}"`;
  const bytes = Buffer.from(value, "latin1");
  const written = Buffer.allocUnsafe(2 * bytes.length + 2);
  let to = 0;
  written[to++] = QUOTE;
  for (const byte of bytes) {
    const letter = letterOfByte[byte]!;
    if (letter !== 0) written[to++] = BACKSLASH;
    written[to++] = letter || byte;
  }
  written[to++] = QUOTE;
  return written.toString("latin1", 0, to);
}

/** Reads tokens from a text, front to back, in time linear in its length. */
export class AtermReader {
  private readonly bytes: Buffer;
  private readonly text: string;
  private at = 0;
  /** Where the next backslash at or after the position is; Infinity if there is none. */
  private backslash = -1;
  /** Room for the string that is being unescaped. */
  private scratch: Buffer | undefined;

  /** @throws AtermError if the text holds a byte that canonical ATerm never holds. */
  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.text = bytes.toString("latin1");
    for (const [character, name] of [
      ["\n", "a newline"],
      ["\r", "a carriage return"],
      ["\t", "a tab"],
      ["\0", "a NUL"],
    ] as const) {
      const at = this.text.indexOf(character);
      if (at >= 0) throw new AtermError(`Byte ${at} is ${name}, which this format never holds as such.`);
    }
  }

  /** Takes exactly that text. @throws AtermError */
  expect(token: string): void {
    if (!this.skip(token)) throw this.error(`expected ${quote(token)}`);
  }

  /** Takes that text if it comes next. */
  skip(token: string): boolean {
    if (!this.text.startsWith(token, this.at)) return false;
    this.at += token.length;
    return true;
  }

  /** Takes a string. @throws AtermError */
  string(): string {
    this.expect('"');
    const start = this.at;
    const close = this.text.indexOf('"', start);
    if (close < 0 || this.nextBackslash(start) < close) return this.escapedString(start);
    this.at = close + 1;
    return this.slice(start, close);
  }

  /** Takes a string that Nix writes without escapes: a path, an output name, a hash, a system. @throws AtermError */
  plainString(): string {
    this.expect('"');
    const start = this.at;
    const close = this.text.indexOf('"', start);
    if (close < 0 || this.nextBackslash(start) < close) throw this.error("expected a string without escapes");
    this.at = close + 1;
    return this.slice(start, close);
  }

  /** Takes a list in square brackets, each item by the given function. @throws AtermError */
  list(item: () => void): void {
    this.expect("[");
    if (this.skip("]")) return;
    do item();
    while (this.skip(","));
    this.expect("]");
  }

  /** @throws AtermError unless everything was read. */
  end(): void {
    if (this.at !== this.text.length) throw this.error("expected the end");
  }

  /** An error about the current position. */
  error(what: string): AtermError {
    const next = quote(this.text.slice(this.at, this.at + 20));
    return new AtermError(
      `At byte ${this.at}: ${what}, found ${this.at < this.text.length ? next : "the end"}.`,
    );
  }

  /** Byte by byte, because a hostile text may be nothing but escapes. */
  private escapedString(start: number): string {
    const bytes = this.bytes;
    this.scratch ??= Buffer.allocUnsafe(bytes.length);
    let length = 0;
    for (let at = start; at < bytes.length; at++) {
      let byte = bytes[at]!;
      if (byte === QUOTE) {
        this.at = at + 1;
        return this.scratch.toString("latin1", 0, length);
      }
      if (byte === BACKSLASH) {
        byte = byteOfLetter[bytes[at + 1] ?? 0]!;
        if (byte === 0) {
          this.at = at;
          throw this.error('expected one of the escapes \\" \\\\ \\n \\r \\t');
        }
        at++;
      }
      this.scratch[length++] = byte;
    }
    throw this.error("expected a string, which has no end");
  }

  private nextBackslash(from: number): number {
    if (this.backslash < from) {
      const at = this.text.indexOf("\\", from);
      this.backslash = at < 0 ? Number.POSITIVE_INFINITY : at;
    }
    return this.backslash;
  }

  /** A copy, not a slice of the text: slices would keep the whole derivation in memory with one of its paths. */
  private slice(start: number, end: number): string {
    return this.bytes.toString("latin1", start, end);
  }
}
