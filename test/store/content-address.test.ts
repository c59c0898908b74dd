import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type ContentAddress,
  ContentAddressError,
  contentAddressPath,
  parseContentAddress,
  parseContentAddressMethod,
  parseOutputHashAlgorithm,
  printContentAddress,
  printContentAddressMethod,
} from "../../src/store/content-address.ts";
import { digestLength, type HashAlgorithm } from "../../src/store/hash.ts";
import { StorePathError } from "../../src/store/store-path.ts";

const store = "/nix/store";
const algorithms: HashAlgorithm[] = ["md5", "sha1", "sha256", "sha512", "blake3"];
const methods = ["text", "flat", "nar", "git"] as const;

function address(
  method: ContentAddress["method"],
  algorithm: HashAlgorithm,
  contents: string,
): ContentAddress {
  return { method, hash: { algorithm, digest: createHash(algorithm).update(contents).digest() } };
}

describe("a content address", () => {
  test.each([
    ["text", "text:sha256"],
    ["flat", "fixed:sha256"],
    ["nar", "fixed:r:sha256"],
    ["git", "fixed:git:sha256"],
  ] as const)("by %s starts with %s", (method, prefix) => {
    expect(parseContentAddressMethod(prefix)).toEqual({ method, algorithm: "sha256" });
    expect(printContentAddressMethod({ method, algorithm: "sha256" })).toBe(prefix);
    expect(printContentAddress(address(method, "sha256", ""))).toBe(
      `${prefix}:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73`,
    );
  });

  test("is read back", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...methods),
        fc.constantFrom(...algorithms),
        fc.uint8Array({ minLength: 64, maxLength: 64 }),
        (method, algorithm, bytes) => {
          const value: ContentAddress = {
            method,
            hash: { algorithm, digest: Buffer.from(bytes.subarray(0, digestLength(algorithm))) },
          };
          expect(parseContentAddress(printContentAddress(value))).toEqual(value);
        },
      ),
    );
  });

  test("is read in base 16 too", () => {
    const value = address("nar", "sha1", "x");
    expect(parseContentAddress(`fixed:r:sha1:${value.hash.digest.toString("hex")}`)).toEqual(value);
  });

  test.each([
    "",
    "text",
    "text:",
    "text:sha256",
    "text:r:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
    "fixed:x:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
    "fixed:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c7",
    "fixed:sha256:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
    "fixed:sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    "fixed:constructor:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
    "Fixed:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73",
    "fixed:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73\n",
  ])("is not %j", (text) => {
    expect(() => parseContentAddress(text)).toThrow(ContentAddressError);
  });

  test.each([
    "",
    "sha256",
    "r:sha256",
    "text",
    "text:sha256:",
    "fixed:",
    "fixed:r:",
    "fixed:sha256 ",
    "text:md6",
  ])("has no method %j", (text) => {
    expect(() => parseContentAddressMethod(text)).toThrow(ContentAddressError);
  });

  test.each([
    ["sha256", "flat"],
    ["r:sha256", "nar"],
    ["git:sha256", "git"],
    ["text:sha256", "text"],
  ])("is written %s in derivations", (text, method) => {
    expect(parseOutputHashAlgorithm(text)).toEqual({ method, algorithm: "sha256" });
  });

  test.each(["", "r:", "fixed:sha256", "r:r:sha256", "SHA256"])(
    "is not written %j in derivations",
    (text) => {
      expect(() => parseOutputHashAlgorithm(text)).toThrow(ContentAddressError);
    },
  );
});

describe("the store path of a content address", () => {
  // nix-store --add-fixed of a file that holds "hi\n", on 2.3, 2.8, 2.26 and 2.34.
  test.each([
    ["md5", "/nix/store/xbimgry92d3nikdz6pinaw4mxg8wh29p-f"],
    ["sha1", "/nix/store/miyzd4rdj1idrrzcmmlphhh8g1m3npgb-f"],
    ["sha256", "/nix/store/hrbblgbxbvz8al5a8l85i8giajyajiwj-f"],
    ["sha512", "/nix/store/4iv2qk4p0fgdjkgh7pi5nz6svn06vkgx-f"],
  ] as const)("of a flat file by %s is Nix's", (algorithm, path) => {
    expect(contentAddressPath(store, "f", address("flat", algorithm, "hi\n"), [])).toBe(path);
  });

  const a = `${store}/${"a".repeat(32)}-x`;
  const b = `${store}/${"b".repeat(32)}-x`;

  test.each(["text", "nar"] as const)("of %s does not depend on the order of references", (method) => {
    const value = address(method, "sha256", "x");
    const path = contentAddressPath(store, "f", value, [a, b]);
    expect(contentAddressPath(store, "f", value, [b, a, b])).toBe(path);
    expect(contentAddressPath(store, "f", value, [a])).not.toBe(path);
  });

  test("depends on the reference to itself", () => {
    const value = address("nar", "sha256", "x");
    expect(contentAddressPath(store, "f", value, [], true)).not.toBe(
      contentAddressPath(store, "f", value, []),
    );
  });

  test.each([
    ["a text by sha1", address("text", "sha1", ""), [], false],
    ["a text that refers to itself", address("text", "sha256", ""), [], true],
    ["a git object by sha512", address("git", "sha512", ""), [], false],
    ["a flat file with references", address("flat", "sha256", ""), [a], false],
    ["a NAR by sha512 with references", address("nar", "sha512", ""), [a], false],
    ["a NAR by sha1 that refers to itself", address("nar", "sha1", ""), [], true],
  ] as const)("does not exist for %s", (_, value, references, selfReference) => {
    expect(() => contentAddressPath(store, "f", value, references, selfReference)).toThrow(
      ContentAddressError,
    );
  });

  test("does not exist for a name that no store path has", () => {
    expect(() => contentAddressPath(store, "a/b", address("nar", "sha256", ""), [])).toThrow(StorePathError);
  });
});
