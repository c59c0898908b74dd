/**
 * Reads what means something to Nix out of the JSON text of `__json`, which may hold millions of values that do not. The text
 * is walked once, byte by byte and in slices, and checked as strictly as Nix's own parser does it (nlohmann's: RFC 8259, valid
 * UTF-8, no half surrogate pairs); values are made of the wanted members alone.
 */

import { DerivationError } from "./derivation-error.ts";
import { quote } from "./quote.ts";
import type { Slices } from "./slices.ts";

/** A JSON value whose objects are Maps, so that no key can reach a prototype. */
export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
/** A JSON object. */
export type JsonObject = Map<string, JsonValue>;

/** Deeper structures are not taken. */
const MAX_DEPTH = 128;
/** Of the wanted members, all together. */
export const MOST_KEPT_BYTES = 512 * 1024;
export const MOST_KEPT_VALUES = 20_000;
/** Bytes of one number. Nobody needs longer numbers, and they would also have to be read in slices. */
const LONGEST_NUMBER = 4096;
/** A key that is written entirely in escapes has six bytes per character. */
const BYTES_A_CHARACTER = 6;
/** Bytes between two yields. */
const SLICE = 16 * 1024;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const MINUS = 0x2d;
const PLUS = 0x2b;
const DOT = 0x2e;
const ZERO = 0x30;
const LETTER_U = 0x75;

/** What may stand behind a backslash, but for `u`. */
const isEscape = bytesAmong('"\\/bfnrt');
const isSpace = bytesAmong(" \t\n\r");
const isHex = bytesAmong("0123456789abcdefABCDEF");
const isDigit = bytesAmong("0123456789");

const LITERALS: ReadonlyMap<number, string> = new Map(
  ["true", "false", "null"].map((literal) => [literal.charCodeAt(0), literal]),
);

/** What must come next. `first…` may also be the end of what was just opened. */
type Expected = "value" | "firstValue" | "key" | "firstKey" | "colon" | "separator" | "end";

/**
 * The wanted members of the object that a text in JSON is; of two with one name the last, as in Nix. Strings hold the bytes of
 * their UTF-8, one a character.
 * @param wanted names in ASCII
 * @throws DerivationError if it is not a JSON object in UTF-8, or its wanted members hold more than is taken
 */
export function* structuredAttributes(text: Buffer, wanted: ReadonlySet<string>): Slices<JsonObject> {
  const members = yield* new Scanner(text, wanted).members();
  const object: JsonObject = new Map();
  for (const [name, member] of members)
    object.set(name, withMaps(JSON.parse(member.toString("utf8")) as unknown));
  return object;
}

class Scanner {
  private readonly text: Buffer;
  private readonly wanted: ReadonlySet<string>;
  /** With its quotes. */
  private readonly longestKey: number;
  private readonly found = new Map<string, Buffer>();
  private at = 0;
  /** The kinds of the structures around the position, the outermost first: the bytes that open them. */
  private readonly around = new Uint8Array(MAX_DEPTH + 1);
  private depth = 0;
  /** The wanted member that the position is in, and where its value starts. */
  private member: string | undefined;
  private memberStart = 0;
  private keyStart = 0;
  private keptBytes = 0;
  private keptValues = 0;

  constructor(text: Buffer, wanted: ReadonlySet<string>) {
    this.text = text;
    this.wanted = wanted;
    this.longestKey = BYTES_A_CHARACTER * Math.max(0, ...[...wanted].map(({ length }) => length)) + 2;
  }

  *members(): Slices<Map<string, Buffer>> {
    const { text } = this;
    let expected: Expected = "value";
    let next = SLICE;
    for (;;) {
      while (isSpace[text[this.at] ?? 0] === 1) {
        this.at++;
        if (this.at >= next) break;
      }
      if (this.at >= next) {
        next = this.at + SLICE;
        yield;
        continue;
      }
      if (expected === "end") break;
      const byte = text[this.at] ?? 0;
      switch (expected) {
        case "firstValue":
        case "value":
          if (expected === "firstValue" && byte === CLOSE_ARRAY) {
            expected = this.close(OPEN_ARRAY);
            break;
          }
          this.beginValue(byte);
          if (byte === QUOTE) {
            this.at++;
            while (!this.passString(this.at + SLICE)) yield;
            expected = this.endValue();
          } else expected = this.value(byte);
          break;
        case "firstKey":
        case "key":
          if (expected === "firstKey" && byte === CLOSE_OBJECT) {
            expected = this.close(OPEN_OBJECT);
            break;
          }
          if (byte !== QUOTE) throw this.error("expected a name");
          this.keyStart = this.at++;
          while (!this.passString(this.at + SLICE)) yield;
          this.endKey();
          expected = "colon";
          break;
        case "colon":
          if (byte !== COLON) throw this.error("expected a colon");
          this.at++;
          expected = "value";
          break;
        case "separator":
          expected = this.separator(byte);
          break;
      }
    }
    if (this.at < text.length) throw this.error("expected the end");
    return this.found;
  }

  private beginValue(byte: number): void {
    if (this.depth > MAX_DEPTH)
      throw new DerivationError(
        `The structured attributes (__json) of the derivation are nested deeper than ${MAX_DEPTH} levels.`,
      );
    if (this.depth === 0 && byte !== OPEN_OBJECT) throw this.error("expected a JSON object");
    if (this.member === undefined) return;
    if (this.depth === 1) this.memberStart = this.at;
    if (++this.keptValues > MOST_KEPT_VALUES) throw this.tooMuch("values");
  }

  /** Takes a value other than a string, or the beginning of a structure. */
  private value(byte: number): Expected {
    if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
      this.around[this.depth++] = byte;
      this.at++;
      return byte === OPEN_OBJECT ? "firstKey" : "firstValue";
    }
    if (byte === MINUS || isDigit[byte] === 1) this.number();
    else this.literal(byte);
    return this.endValue();
  }

  private separator(byte: number): Expected {
    const inObject = this.around[this.depth - 1] === OPEN_OBJECT;
    if (byte === COMMA) {
      this.at++;
      return inObject ? "key" : "value";
    }
    if (byte !== (inObject ? CLOSE_OBJECT : CLOSE_ARRAY)) throw this.error("expected a comma or the end");
    return this.close(inObject ? OPEN_OBJECT : OPEN_ARRAY);
  }

  private close(kind: number): Expected {
    if (this.around[this.depth - 1] !== kind) throw this.error("expected something else");
    this.at++;
    this.depth--;
    return this.endValue();
  }

  private endValue(): Expected {
    if (this.depth === 0) return "end";
    if (this.depth === 1 && this.member !== undefined) {
      this.keptBytes += this.at - this.memberStart;
      if (this.keptBytes > MOST_KEPT_BYTES) throw this.tooMuch("bytes");
      this.found.set(this.member, this.text.subarray(this.memberStart, this.at));
      this.member = undefined;
    }
    return "separator";
  }

  /** A key was taken; of the outermost object one may be the name of a member that is wanted. */
  private endKey(): void {
    if (this.depth !== 1 || this.at - this.keyStart > this.longestKey) return;
    const written = this.text.toString("latin1", this.keyStart + 1, this.at - 1);
    const name = written.includes("\\") ? (JSON.parse(`"${written}"`) as string) : written;
    this.member = this.wanted.has(name) ? name : undefined;
  }

  /** @returns false when the string goes on behind that place */
  private passString(until: number): boolean {
    const { text } = this;
    while (this.at < until) {
      const byte = text[this.at];
      if (byte === undefined) throw this.error("expected the end of a string");
      if (byte === QUOTE) {
        this.at++;
        return true;
      }
      if (byte === BACKSLASH) this.escape();
      else if (byte < 0x20) throw this.error("expected no control character in a string");
      else if (byte < 0x80) this.at++;
      else this.at += this.utf8(byte);
    }
    return false;
  }

  private escape(): void {
    const letter = this.text[this.at + 1] ?? 0;
    if (letter !== LETTER_U) {
      if (isEscape[letter] !== 1) throw this.error("expected an escape");
      this.at += 2;
      return;
    }
    const unit = this.unit(this.at);
    if (unit >= 0xdc00 && unit <= 0xdfff) throw this.halfPair();
    if (unit < 0xd800 || unit > 0xdbff) {
      this.at += 6;
      return;
    }
    if (this.text[this.at + 6] !== BACKSLASH || this.text[this.at + 7] !== LETTER_U) throw this.halfPair();
    const low = this.unit(this.at + 6);
    if (low < 0xdc00 || low > 0xdfff) throw this.halfPair();
    this.at += 12;
  }

  /** The number that `\\u0000` writes. */
  private unit(at: number): number {
    for (let i = at + 2; i < at + 6; i++)
      if (isHex[this.text[i] ?? 0] !== 1) throw this.error("expected four hexadecimal digits");
    return Number.parseInt(this.text.toString("latin1", at + 2, at + 6), 16);
  }

  /** How many bytes the character has that starts here: well-formed UTF-8, as in table 3-7 of the Unicode standard. */
  private utf8(first: number): number {
    const second = this.text[this.at + 1] ?? 0;
    if (first >= 0xc2 && first <= 0xdf && isTail(second)) return 2;
    const third = this.text[this.at + 2] ?? 0;
    if (first >= 0xe0 && first <= 0xef && isTail(third)) {
      const from = first === 0xe0 ? 0xa0 : 0x80;
      const to = first === 0xed ? 0x9f : 0xbf;
      if (second >= from && second <= to) return 3;
    }
    const fourth = this.text[this.at + 3] ?? 0;
    if (first >= 0xf0 && first <= 0xf4 && isTail(third) && isTail(fourth)) {
      const from = first === 0xf0 ? 0x90 : 0x80;
      const to = first === 0xf4 ? 0x8f : 0xbf;
      if (second >= from && second <= to) return 4;
    }
    throw this.error("expected UTF-8");
  }

  private number(): void {
    const { text } = this;
    const until = this.at + LONGEST_NUMBER;
    const digits = (): void => {
      if (isDigit[text[this.at] ?? 0] !== 1) throw this.error("expected a digit");
      while (isDigit[text[this.at] ?? 0] === 1) {
        this.at++;
        if (this.at > until) throw this.error(`expected a number of at most ${LONGEST_NUMBER} characters`);
      }
    };
    if (text[this.at] === MINUS) this.at++;
    if (text[this.at] === ZERO) this.at++;
    else digits();
    if (text[this.at] === DOT) {
      this.at++;
      digits();
    }
    // An `e` of either case.
    if (((text[this.at] ?? 0) | 0x20) !== 0x65) return;
    this.at++;
    if (text[this.at] === PLUS || text[this.at] === MINUS) this.at++;
    digits();
  }

  private literal(byte: number): void {
    const literal = LITERALS.get(byte);
    if (literal === undefined || this.text.toString("latin1", this.at, this.at + literal.length) !== literal)
      throw this.error("expected a value");
    this.at += literal.length;
  }

  private error(what: string): DerivationError {
    const next = quote(this.text.toString("latin1", this.at, this.at + 20));
    return new DerivationError(
      `The structured attributes (__json) of the derivation are not a JSON object in UTF-8. At byte ${this.at}: ${what}, found ${this.at < this.text.length ? next : "the end"}.`,
    );
  }

  private halfPair(): DerivationError {
    return new DerivationError(
      `The structured attributes (__json) of the derivation hold half a surrogate pair, at byte ${this.at}.`,
    );
  }

  private tooMuch(what: "values" | "bytes"): DerivationError {
    const most = what === "values" ? MOST_KEPT_VALUES : MOST_KEPT_BYTES;
    return new DerivationError(
      `Those structured attributes (__json) of the derivation that Nix itself reads hold more than ${most} ${what}, in ${quote(this.member ?? "")}.`,
    );
  }
}

function bytesAmong(characters: string): Uint8Array {
  const among = new Uint8Array(256);
  for (const character of characters) among[character.charCodeAt(0)] = 1;
  return among;
}

function isTail(byte: number): boolean {
  return byte >= 0x80 && byte <= 0xbf;
}

function withMaps(value: unknown): JsonValue {
  if (typeof value === "string") return byteString(value);
  if (Array.isArray(value)) return value.map(withMaps);
  if (typeof value === "object" && value !== null)
    return new Map(Object.entries(value).map(([key, item]) => [byteString(key), withMaps(item)]));
  return value as null | boolean | number;
}

function byteString(text: string): string {
  return Buffer.from(text, "utf8").toString("latin1");
}
