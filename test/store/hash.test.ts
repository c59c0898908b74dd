import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  digestLength,
  type Hash,
  type HashAlgorithm,
  HashError,
  parseHash,
  printHash,
} from "../../src/store/hash.ts";

const algorithms: HashAlgorithm[] = ["md5", "sha1", "sha256", "sha512", "blake3"];
const anyHash: fc.Arbitrary<Hash> = fc.constantFrom(...algorithms).chain((algorithm) => {
  const length = digestLength(algorithm);
  return fc
    .uint8Array({ minLength: length, maxLength: length })
    .map((digest) => ({ algorithm, digest: Buffer.from(digest) }));
});
const empty = createHash("sha256").digest();

describe("a hash", () => {
  test.each([
    ["base16", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"],
    ["base32", "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"],
    ["base64", "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="],
    ["sri", "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="],
  ] as const)("in %s is written and read as Nix does", (format, text) => {
    const hash: Hash = { algorithm: "sha256", digest: empty };
    expect(printHash(hash, format, true)).toBe(text);
    expect(parseHash(text)).toEqual(hash);
    expect(parseHash(text, "sha256")).toEqual(hash);
  });

  test("is read back from all its texts, with the prefix and without", () => {
    fc.assert(
      fc.property(anyHash, (hash) => {
        for (const format of ["base16", "base32", "base64"] as const) {
          expect(parseHash(printHash(hash, format, true))).toEqual(hash);
          expect(parseHash(printHash(hash, format, false), hash.algorithm)).toEqual(hash);
        }
        expect(parseHash(printHash(hash, "sri", true))).toEqual(hash);
        expect(printHash(hash, "sri", false)).toBe(printHash(hash, "sri", true));
      }),
    );
  });

  test("is read from capitals in base 16", () => {
    expect(parseHash(empty.toString("hex").toUpperCase(), "sha256").digest).toEqual(empty);
  });

  test.each([
    ["no algorithm", empty.toString("hex")],
    ["an unknown algorithm", `sha3:${empty.toString("hex")}`],
    ["a name from the prototype of objects", `constructor:${empty.toString("hex")}`],
    ["a short digest", `sha256:${empty.toString("hex").slice(2)}`],
    ["a foreign character in base 16", `sha256:${"0".repeat(63)}g`],
    ["a foreign character in base 32", `sha256:${"0".repeat(51)}e`],
    ["surplus bits in base 32", `sha256:${"z".repeat(52)}`],
    ["surplus bits in base 64", "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV="],
    ["base 64 for URLs", "sha256:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="],
    ["base 16 after a dash", `sha256-${empty.toString("hex")}`],
    ["nothing", ""],
  ])("is refused with %s", (_, text) => {
    expect(() => parseHash(text)).toThrow(HashError);
  });

  test("is refused with another algorithm than the given one", () => {
    expect(() => parseHash(`sha256:${empty.toString("hex")}`, "sha512")).toThrow(
      "must be of the algorithm sha512",
    );
  });

  test("that is hostile and long gives a short message", () => {
    expect(() => parseHash("x".repeat(1_000_000), "sha1")).toThrow(/^.{1,400}$/);
  });
});
