import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  BASE32_ALPHABET,
  Base32Error,
  base32Length,
  decodeBase32,
  encodeBase32,
} from "../../src/store/base32.ts";

const bytes = fc.uint8Array({ maxLength: 80 });

describe("base 32", () => {
  test("is the one that Nix prints", () => {
    // nix-hash --to-base32 of 2.3, 2.8, 2.26 and 2.34.
    const digest = Buffer.from("98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4", "hex");
    expect(encodeBase32(digest)).toBe("1r3v22qkypccqifzbww5lrn6hf1chi23m6zzkyvb8bvg457nxslq");
  });

  test("writes nothing as nothing", () => {
    expect(encodeBase32(Buffer.alloc(0))).toBe("");
    expect(decodeBase32("")).toEqual(Buffer.alloc(0));
  });

  test("gives any bytes back", () => {
    fc.assert(
      fc.property(bytes, (value) => {
        const text = encodeBase32(value);
        expect(text).toHaveLength(base32Length(value.length));
        expect([...decodeBase32(text)]).toEqual([...value]);
      }),
    );
  });

  test("has one spelling of each value", () => {
    const anyText = fc.string({ unit: fc.constantFrom(...BASE32_ALPHABET, "e", "A", "-"), maxLength: 60 });
    fc.assert(
      fc.property(anyText, (text) => {
        let value: Buffer;
        try {
          value = decodeBase32(text);
        } catch (error) {
          expect(error).toBeInstanceOf(Base32Error);
          return;
        }
        expect(encodeBase32(value)).toBe(text);
      }),
    );
  });

  test.each([
    ["e", "a length that no number of bytes gives"],
    ["0e", "a letter that the alphabet leaves out"],
    ["0A", "a capital letter"],
    ["0\u0130", "a character beyond one byte"],
    ["zz", "bits beyond the last byte"],
  ])("refuses %j: %s", (text) => {
    expect(() => decodeBase32(text)).toThrow(Base32Error);
  });
});
