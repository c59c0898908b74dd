/**
 * Nix's own base 32: the alphabet leaves out e, o, u and t, and the digits run from the most significant
 * bits of the *last* byte to the least significant bits of the first.
 * Format: `src/libutil/base-nix-32.cc` in the Nix tree (`printHash32` of `hash.cc` up to 2.31).
 */

import { quote } from "./quote.ts";

/** The 32 digits, by value. */
export const BASE32_ALPHABET = "0123456789abcdfghijklmnpqrsvwxyz";

const NOT_A_DIGIT = 0xff;

/** The value of each byte as a digit, or 255 where the byte is none. */
const digitOfByte: Uint8Array = new Uint8Array(256).fill(NOT_A_DIGIT);
for (let value = 0; value < BASE32_ALPHABET.length; value++)
  digitOfByte[BASE32_ALPHABET.charCodeAt(value)] = value;

/** A text that is not base 32 in Nix's form. */
export class Base32Error extends Error {
  override readonly name = "Base32Error";
}

/** Whether a byte (or a character code) is a base 32 digit. */
export function isBase32Digit(byte: number): boolean {
  return byte < 256 && digitOfByte[byte] !== NOT_A_DIGIT;
}

/** How many digits that many bytes take. */
export function base32Length(bytes: number): number {
  return Math.ceil((bytes * 8) / 5);
}

/** Writes bytes as base 32. */
export function encodeBase32(bytes: Uint8Array): string {
  const length = base32Length(bytes.length);
  const text = Buffer.allocUnsafe(length);
  for (let digit = 0; digit < length; digit++) {
    const bit = digit * 5;
    const index = bit >> 3;
    const pair = bytes[index]! | ((bytes[index + 1] ?? 0) << 8);
    text[length - 1 - digit] = BASE32_ALPHABET.charCodeAt((pair >> (bit & 7)) & 31);
  }
  return text.toString("latin1");
}

/**
 * Reads base 32.
 * @throws Base32Error on a foreign character, on a length that no number of bytes gives, and on bits beyond the
 * last byte: one value has one spelling.
 */
export function decodeBase32(text: string): Buffer {
  const bytes = Buffer.alloc(Math.floor((text.length * 5) / 8));
  if (base32Length(bytes.length) !== text.length)
    throw new Base32Error(`A base 32 text cannot be ${text.length} characters long.`);
  for (let position = 0; position < text.length; position++) {
    const code = text.charCodeAt(text.length - 1 - position);
    if (!isBase32Digit(code))
      throw new Base32Error(
        `${quote(text)} is not base 32: character ${text.length - position} is not one of ${BASE32_ALPHABET}.`,
      );
    const bit = position * 5;
    const index = bit >> 3;
    const shifted = digitOfByte[code]! << (bit & 7);
    bytes[index]! |= shifted & 0xff;
    if (shifted > 0xff) {
      if (index + 1 >= bytes.length)
        throw new Base32Error(`${quote(text)} is not base 32: its first character is too large.`);
      bytes[index + 1]! |= shifted >> 8;
    }
  }
  return bytes;
}
