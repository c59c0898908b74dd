import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BASE32_ALPHABET } from "../../src/store/base32.ts";
import { ReferenceScanner } from "../../src/store/reference-scanner.ts";
import { StorePathError } from "../../src/store/store-path.ts";

/** Few digits, so that hash parts overlap with themselves and each other. */
const hashPart = fc.string({ unit: fc.constantFrom("0", "a", "z"), minLength: 32, maxLength: 32 });
const anyHashPart = fc.string({ unit: fc.constantFrom(...BASE32_ALPHABET), minLength: 32, maxLength: 32 });
const noise = fc.string({ unit: fc.constantFrom("0", "a", "z", "e", "-", "/", "\0", "\xff"), maxLength: 70 });

function scan(
  hashParts: Iterable<string>,
  bytes: Buffer,
  sizes: readonly number[] = [bytes.length],
): Set<string> {
  const scanner = new ReferenceScanner(hashParts);
  for (let i = 0, at = 0; at < bytes.length; i++) {
    const chunk = bytes.subarray(at, at + Math.max(1, sizes[i % sizes.length]!));
    scanner.push(chunk);
    at += chunk.length;
  }
  return scanner.found;
}

/** The definition: what is looked for, and is in there. */
function contained(hashParts: readonly string[], text: string): Set<string> {
  return new Set(hashParts.filter((part) => text.includes(part)));
}

const sizes = fc.array(fc.integer({ min: 0, max: 80 }), { minLength: 1, maxLength: 6 });

describe("a reference", () => {
  test.each([hashPart, anyHashPart])(
    "is found wherever it stands and however the stream is cut (%#)",
    (part) => {
      fc.assert(
        fc.property(
          fc.array(part, { minLength: 1, maxLength: 5 }),
          fc.array(fc.oneof(noise, fc.nat({ max: 4 })), { maxLength: 8 }),
          sizes,
          (parts, pieces, chunks) => {
            const text = pieces
              .map((piece) => (typeof piece === "string" ? piece : parts[piece % parts.length]!))
              .join("");
            const bytes = Buffer.from(text, "latin1");
            const expected = contained(parts, text);
            expect(scan(parts, bytes)).toEqual(expected);
            expect(scan(parts, bytes, chunks)).toEqual(expected);
            expect(scan(parts, bytes, [1])).toEqual(expected);
          },
        ),
        { numRuns: 500 },
      );
    },
  );

  test("is found at every offset of a chunk and across every cut", () => {
    const part = "1r3v22qkypccqifzbww5lrn6hf1chi23";
    for (const filler of [" ", "a", "1"])
      for (let offset = 0; offset < 70; offset++) {
        const bytes = Buffer.from(filler.repeat(offset) + part + filler.repeat(70 - offset));
        for (let cut = 1; cut < bytes.length; cut++)
          expect(scan([part], bytes, [cut, bytes.length])).toEqual(new Set([part]));
      }
  });

  test("is found inside a longer run of digits, which is how Nix does it", () => {
    const part = "a".repeat(31).concat("b");
    expect(scan([part], Buffer.from(`${"a".repeat(100)}b`))).toEqual(new Set([part]));
  });

  test("is not found where one character differs", () => {
    const part = "1r3v22qkypccqifzbww5lrn6hf1chi23";
    for (let at = 0; at < 32; at++)
      for (const other of ["8", "e", "-"])
        expect(scan([part], Buffer.from(`x${part.slice(0, at)}${other}${part.slice(at + 1)}x`)).size).toBe(0);
  });

  test("is found among a hundred thousand that are looked for", () => {
    const parts = Array.from({ length: 100_000 }, (_, i) => {
      const digits = i.toString(2).padStart(17, "0").replaceAll("1", "z");
      return `${digits}${"a".repeat(15)}`;
    });
    const wanted = [parts[0]!, parts[4711]!, parts[99_999]!];
    const bytes = Buffer.from(wanted.join("-".repeat(5000)));
    expect(scan(parts, bytes, [4096])).toEqual(new Set(wanted));
  });

  test("is found in bytes that repeat it, and that hold nothing but digits", () => {
    const parts = ["a".repeat(32), "0".repeat(32), `${"a".repeat(31)}0`];
    const bytes = Buffer.concat([Buffer.alloc(5_000_000, "a"), Buffer.from("0")]);
    expect(scan(parts, bytes, [65_536])).toEqual(new Set([parts[0], parts[2]]));
  });

  test.each(["", "a", "a".repeat(31), "a".repeat(33), "e".repeat(32), "A".repeat(32), `${"a".repeat(31)}-`])(
    "cannot be looked for by %j",
    (text) => {
      expect(() => new ReferenceScanner([text])).toThrow(StorePathError);
    },
  );

  test("is not found if none is looked for", () => {
    expect(scan([], Buffer.from("a".repeat(100))).size).toBe(0);
  });
});
