import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BASE32_ALPHABET } from "../../src/store/base32.ts";
import {
  isDerivationPath,
  isStorePath,
  parseStoreName,
  parseStorePath,
  StorePathError,
  storePathBase,
  storePathHash,
  storePathName,
} from "../../src/store/store-path.ts";

const store = "/nix/store";
const hashPart = "1r3v22qkypccqifzbww5lrn6hf1chi23";

describe("a store path", () => {
  test.each(["a", ".a", ".gitignore", "...", "hello-2.12.1", "-", "?=+_-.", "x.drv", "x".repeat(211)])(
    "may have the name %j",
    (name) => {
      const path = `${store}/${hashPart}-${name}`;
      expect(parseStorePath(path, store)).toBe(path);
      expect(storePathName(path)).toBe(name);
      expect(storePathHash(path)).toBe(hashPart);
      expect(storePathBase(path)).toBe(`${hashPart}-${name}`);
      expect(parseStoreName(name)).toBe(name);
    },
  );

  test.each([
    ["", "the name is empty"],
    [".", "one or two dots"],
    ["..", "one or two dots"],
    [".-a", "one or two dots"],
    ["..-a", "one or two dots"],
    ["x".repeat(212), "212 characters, more than 211"],
    ["a b", "a character other than"],
    ["a\n", "a character other than"],
    ["a\0", "a character other than"],
    ["ä", "a character other than"],
    ["a:b", "a character other than"],
    ["a!out", "a character other than"],
  ])("may not have the name %j", (name, why) => {
    expect(() => parseStorePath(`${store}/${hashPart}-${name}`, store)).toThrow(why);
    expect(() => parseStoreName(name)).toThrow(StorePathError);
  });

  test.each([
    ["", "is not in /nix/store"],
    ["/nix/store", "is not in /nix/store"],
    ["/nix/store/", "32 characters"],
    [`/nix/storf/${hashPart}-a`, "is not in /nix/store"],
    [`/nix/store2/${hashPart}-a`, "is not in /nix/store"],
    [`/nix//store/${hashPart}-a`, "is not in /nix/store"],
    [`/nix/store//${hashPart}-a`, "below a store path"],
    [`/nix/store/${hashPart}-a/b`, "below a store path"],
    [`/nix/store/../store/${hashPart}-a`, "below a store path"],
    [`/nix/store/${hashPart}`, "a dash must follow"],
    [`/nix/store/${hashPart}_a`, "a dash must follow"],
    [`/nix/store/${hashPart.slice(1)}-a`, "32 characters"],
    [`/nix/store/e${hashPart.slice(1)}-a`, "32 characters"],
    [`/nix/store/${hashPart.toUpperCase()}-a`, "32 characters"],
    [`${hashPart}-a`, "is not in /nix/store"],
  ])("is not %j", (text, why) => {
    expect(isStorePath(text, store)).toBe(false);
    expect(() => parseStorePath(text, store)).toThrow(why);
  });

  test("is only what is in the store folder that counts", () => {
    expect(isStorePath(`/tmp/s/${hashPart}-a`, "/tmp/s")).toBe(true);
    expect(isStorePath(`/tmp/s/${hashPart}-a`, store)).toBe(false);
  });

  test("is a derivation's by its name", () => {
    expect(isDerivationPath(`${store}/${hashPart}-a.drv`)).toBe(true);
    expect(isDerivationPath(`${store}/${hashPart}-a.drv.txt`)).toBe(false);
  });

  test("comes apart and together again", () => {
    const digits = fc.string({ unit: fc.constantFrom(...BASE32_ALPHABET), minLength: 32, maxLength: 32 });
    const name = fc.stringMatching(/^[0-9a-zA-Z+\-_?=][0-9a-zA-Z+\-._?=]{0,210}$/);
    fc.assert(
      fc.property(digits, name, (hash, rest) => {
        const path = parseStorePath(`${store}/${hash}-${rest}`, store);
        expect(`${store}/${storePathHash(path)}-${storePathName(path)}`).toBe(path);
      }),
    );
  });

  test("is never made out of arbitrary text with a slash, a blank or a control character after the folder", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => {
        const path = `${store}/${hashPart}-a${text}`;
        expect(isStorePath(path, store)).toBe(/^[0-9a-zA-Z+\-._?=]*$/.test(text));
      }),
    );
  });
});
