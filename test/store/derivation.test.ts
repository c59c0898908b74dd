import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BASE32_ALPHABET } from "../../src/store/base32.ts";
import { contentAddressPath } from "../../src/store/content-address.ts";
import {
  type Derivation,
  DerivationError,
  type DerivationOutput,
  derivationOf,
  fixedOutputAddress,
  outputKind,
  outputPathName,
  parseDerivation,
} from "../../src/store/derivation.ts";
import {
  attributesOf,
  type DerivationText,
  derivationPath,
  readDerivationText,
  unparseDerivation,
  withAttributes,
} from "./derivation-text.ts";

const a = `/nix/store/${"a".repeat(32)}`;
const b = `/nix/store/${"b".repeat(32)}`;
const hex = "98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4";

/** A derivation's text out of its fields, each with a default. */
function aterm({
  outputs = `("out","${a}-x","","")`,
  inputDrvs = "",
  inputSrcs = "",
  system = '"s"',
  builder = '"/bin/sh"',
  args = "",
  env = "",
} = {}): Buffer {
  const text = `Derive([${outputs}],[${inputDrvs}],[${inputSrcs}],${system},${builder},[${args}],[${env}])`;
  return Buffer.from(text, "latin1");
}

const byteText = fc
  .uint8Array({ maxLength: 20 })
  .map((bytes) => Buffer.from(bytes.filter((byte) => byte !== 0)).toString("latin1"));
const storeName = fc.stringMatching(/^[a-z0-9+\-_?=][a-zA-Z0-9+\-._?=]{0,12}$/);
const storePath = fc
  .tuple(fc.string({ unit: fc.constantFrom(...BASE32_ALPHABET), minLength: 32, maxLength: 32 }), storeName)
  .map(([hashPart, name]) => `/nix/store/${hashPart}-${name}`);
const output: fc.Arbitrary<DerivationOutput> = fc.oneof(
  storePath.map((path) => ({ path, hashAlgorithm: "", hash: "" })),
  storePath.map((path) => ({ path, hashAlgorithm: "r:sha256", hash: hex })),
  fc.constantFrom(
    { path: "", hashAlgorithm: "", hash: "" },
    { path: "", hashAlgorithm: "text:sha256", hash: "" },
    { path: "", hashAlgorithm: "sha1", hash: "impure" },
  ),
);
const derivation: fc.Arbitrary<DerivationText> = fc.record({
  outputs: mapOf(storeName, output, 1),
  inputDrvs: mapOf(storePath, fc.uniqueArray(storeName, { minLength: 1, maxLength: 3 })),
  inputSrcs: fc.uniqueArray(storePath, { maxLength: 4 }),
  system: storeName,
  builder: byteText,
  args: fc.array(byteText, { maxLength: 4 }),
  env: mapOf(byteText, byteText),
});

function mapOf<T>(
  key: fc.Arbitrary<string>,
  value: fc.Arbitrary<T>,
  minLength = 0,
): fc.Arbitrary<Map<string, T>> {
  return fc
    .uniqueArray(fc.tuple(key, value), { minLength, maxLength: 4, selector: ([name]) => name })
    .map((entries) => new Map(entries));
}

describe("a derivation", () => {
  test("is read with all its parts", () => {
    const text = aterm({
      outputs: `("dev","${a}-x-dev","",""),("out","${a}-x","","")`,
      inputDrvs: `("${a}-i.drv",["dev","out"]),("${b}-i.drv",["out"])`,
      inputSrcs: `"${a}-s","${b}-s"`,
      args: '"-c","echo \\"hi\\"\\n\\\\"',
      env: '("","empty"),("a","tab\\t\\r"),("url","tab\\t\\r\xff"),("ä","\xff")',
    });
    expect(parseDerivation(text)).toEqual({
      outputs: new Map([
        ["dev", { path: `${a}-x-dev`, hashAlgorithm: "", hash: "" }],
        ["out", { path: `${a}-x`, hashAlgorithm: "", hash: "" }],
      ]),
      inputDrvs: new Map([
        [`${a}-i.drv`, ["dev", "out"]],
        [`${b}-i.drv`, ["out"]],
      ]),
      inputSrcs: [`${a}-s`, `${b}-s`],
      system: "s",
      builder: "/bin/sh",
      attributes: attributesOf([["url", "tab\t\r\xff"]]),
    });
  });

  test("is read as it was written", () => {
    fc.assert(
      fc.property(derivation, (value) => {
        const text = unparseDerivation(value);
        expect(readDerivationText(text)).toEqual(
          readDerivationText(unparseDerivation(readDerivationText(text))),
        );
        expect(parseDerivation(text)).toEqual(withAttributes(readDerivationText(text)));
      }),
    );
  });

  test("that is accepted is written with the same bytes, whatever happened to the text", () => {
    const change = fc.tuple(fc.nat(), fc.constantFrom(...'"\\,()[]nrtx\n\0 \x80'), fc.constantFrom(0, 1));
    fc.assert(
      fc.property(derivation, fc.array(change, { maxLength: 3 }), (value, changes) => {
        let text = unparseDerivation(value).toString("latin1");
        for (const [position, character, removed] of changes) {
          const at = position % text.length;
          text = text.slice(0, at) + character + text.slice(at + removed);
        }
        const bytes = Buffer.from(text, "latin1");
        let read: Derivation;
        try {
          read = parseDerivation(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(DerivationError);
          return;
        }
        const again = readDerivationText(bytes);
        expect(unparseDerivation(again)).toEqual(bytes);
        expect(read).toEqual(withAttributes(again));
      }),
      { numRuns: 2000 },
    );
  });

  test("that is cut off anywhere is refused", () => {
    const text = aterm({
      inputDrvs: `("${a}-i.drv",["out"])`,
      inputSrcs: `"${a}-s"`,
      args: '"\\n"',
      env: '("a","b")',
    });
    for (let length = 0; length < text.length; length++)
      expect(() => parseDerivation(text.subarray(0, length))).toThrow(DerivationError);
  });

  test.each([
    ["more after the end", Buffer.concat([aterm(), Buffer.from(" ")]), "expected the end"],
    ["a blank", aterm({ args: '"a", "b"' }), "expected"],
    ["a newline between tokens", aterm({ args: '"a",\n"b"' }), "is a newline"],
    ["a raw newline in a string", aterm({ args: '"a\n"' }), "is a newline"],
    ["a raw tab in a string", aterm({ args: '"a\t"' }), "is a tab"],
    ["a raw carriage return in a string", aterm({ args: '"a\r"' }), "is a carriage return"],
    ["a NUL", aterm({ args: '"a\0"' }), "is a NUL"],
    ["a needless escape", aterm({ args: '"\\a"' }), "expected one of the escapes"],
    ["an escaped end", aterm({ args: '"\\"' }), "expected"],
    ["an escape in the system", aterm({ system: '"s\\\\"' }), "a string without escapes"],
    ["an escape in a path", aterm({ inputSrcs: `"${a}-\\n"` }), "a string without escapes"],
    ["a comma after the last item", aterm({ args: '"a",' }), "expected"],
    ["a comma for no item", aterm({ args: "," }), "expected"],
    ["no outputs", aterm({ outputs: "" }), "must have an output"],
    ["an output twice", aterm({ outputs: `("out","","",""),("out","","","")` }), '"out" is there twice'],
    [
      "outputs out of order",
      aterm({ outputs: `("out","","",""),("dev","","","")` }),
      '"dev" is out of order',
    ],
    ["an output with no name", aterm({ outputs: '("","","","")' }), "cannot have the name"],
    ["an output that names a path", aterm({ outputs: '("../x","","","")' }), "cannot have the name"],
    ["an output path that is none", aterm({ outputs: '("out","/etc/passwd","","")' }), "is not a store path"],
    [
      "a hash with no algorithm",
      aterm({ outputs: `("out","${a}-x","","${hex}")` }),
      "a hash and no algorithm",
    ],
    [
      "an unknown algorithm",
      aterm({ outputs: '("out","","r:sha3","")' }),
      "not a hash algorithm of an output",
    ],
    ["a hash in base 32", aterm({ outputs: `("out","${a}-x","sha256","${"0".repeat(52)}")` }), "in base 16"],
    [
      "a hash in capitals",
      aterm({ outputs: `("out","${a}-x","sha256","${hex.toUpperCase()}")` }),
      "in base 16",
    ],
    ["a hash of another length", aterm({ outputs: `("out","${a}-x","sha512","${hex}")` }), "in base 16"],
    ["a fixed output with no path", aterm({ outputs: `("out","","sha256","${hex}")` }), "must have a path"],
    [
      "a floating output with a path",
      aterm({ outputs: `("out","${a}-x","sha256","")` }),
      "must not have a path",
    ],
    [
      "an impure output with a path",
      aterm({ outputs: `("out","${a}-x","sha256","impure")` }),
      "must not have",
    ],
    [
      "an input twice",
      aterm({ inputDrvs: `("${a}-i.drv",["out"]),("${a}-i.drv",["dev"])` }),
      "is there twice",
    ],
    ["an input of which nothing is wanted", aterm({ inputDrvs: `("${a}-i.drv",[])` }), "no output is wanted"],
    ["an output wanted twice", aterm({ inputDrvs: `("${a}-i.drv",["out","out"])` }), "is there twice"],
    ["sources out of order", aterm({ inputSrcs: `"${b}-s","${a}-s"` }), "is out of order"],
    ["a source that is no store path", aterm({ inputSrcs: '"/etc"' }), "is not a store path"],
    ["a source below a store path", aterm({ inputSrcs: `"${a}-s/x"` }), "is not a store path"],
    ["a source that is relative", aterm({ inputSrcs: `"${a.slice(1)}-s"` }), "is not a store path"],
    ["a variable twice", aterm({ env: '("a","1"),("a","2")' }), '"a" is there twice'],
    ["variables out of order", aterm({ env: '("b",""),("a","")' }), '"a" is out of order'],
    ["an input of dynamic outputs", aterm({ inputDrvs: `("${a}-i.drv",(["out"],[]))` }), "expected"],
  ])("with %s is refused", (_, text, why) => {
    expect(() => parseDerivation(text)).toThrow(DerivationError);
    expect(() => parseDerivation(text)).toThrow(why);
  });

  test("of the dynamic form is refused with these words", () => {
    const text = Buffer.from(`DrvWithVersion("xp-dyn-drv",${aterm().toString("latin1").slice(7)}`);
    expect(() => parseDerivation(text)).toThrow(
      "dynamic derivations (the form DrvWithVersion) are not supported",
    );
  });

  test.each([
    ["quotes", `"${'\\"'.repeat(500_000)}"`],
    ["backslashes", `"${"\\\\".repeat(500_000)}"`],
    ["empty strings", '""'.concat(',""'.repeat(99_998))],
    ["strings with one escape each", '"\\n"'.concat(',"\\n"'.repeat(99_998))],
  ])("of a million bytes of %s is read", (_, args) => {
    const text = aterm({ args });
    expect(parseDerivation(text).builder).toBe("/bin/sh");
  });

  test.each([
    ["open brackets", "[".repeat(1_000_000)],
    ["open parentheses", `Derive([${"(".repeat(1_000_000)}`],
    ["a string without end", `Derive([("${"a".repeat(1_000_000)}`],
    ["escapes without end", `Derive([("out","","","")],[],[],"s","${"\\\\".repeat(500_000)}`],
  ])("of %s is refused", (_, text) => {
    expect(() => parseDerivation(Buffer.from(text))).toThrow(DerivationError);
  });

  test.each([
    ["arguments", aterm({ args: '""'.concat(',""'.repeat(100_000)) })],
    [
      "arguments and wanted outputs together",
      aterm({
        inputDrvs: `("${a}-i.drv",[${Array.from({ length: 50_000 }, (_, i) => `"${100_000 + i}"`).join()}])`,
        args: '""'.concat(',""'.repeat(49_999)),
      }),
    ],
  ])("of more %s than anything could be built with is refused", (_, text) => {
    expect(() => parseDerivation(text)).toThrow("more than 100000 outputs, inputs, arguments and variables");
  });

  test.each([
    ["a builder", aterm({ builder: `"${"b".repeat(5000)}"` })],
    ["a builder with escapes", aterm({ builder: `"${"\\\\".repeat(5000)}"` })],
    ["a system", aterm({ system: `"${"s".repeat(5000)}"` })],
  ])("with %s of 5000 bytes is refused", (_, text) => {
    expect(() => parseDerivation(text)).toThrow("expected a string of at most 4096 bytes, not of 5000");
  });

  test("with long strings full of escapes, two in one variable, is read as it says", () => {
    const long = "\n".repeat(100_000);
    const escaped = "\\n".repeat(100_000);
    const name = "\\n".repeat(40_000);
    const env = `("${name}","${escaped}"),("__json","{\\"url\\":\\"${"\\\\n".repeat(50_000)}\\"}"),("urls","${escaped}")`;
    const { attributes } = parseDerivation(aterm({ env }));
    expect(attributes.structured("url") === "\n".repeat(50_000)).toBe(true);
    expect(attributes.variable("urls") === long).toBe(true);
  });

  test("G8: a derivation of 16 MiB is read in slices of bounded work, wherever its bytes are", () => {
    const size = 16 * 1024 * 1024;
    const small = '"\\n"';
    for (const text of [
      aterm({ args: `"${"\\\\".repeat(size / 2)}"` }),
      aterm({ args: `"${"x".repeat(size)}"` }),
      aterm({ env: `("__json","${"\\\\".repeat(size / 2)}")` }),
      aterm({ env: `("__json","{\\"a\\":[${"{},".repeat(size / 3)}{}]}")` }),
      aterm({ args: small.concat(`,${small}`.repeat(99_000)) }),
    ]) {
      const work = derivationOf(text);
      let slices = 0;
      while (!work.next().done) slices++;
      // A slice looks at no more than a mebibyte, and no more than 64 KiB of it byte by byte.
      expect(slices).toBeGreaterThanOrEqual(Math.floor(text.length / (1024 * 1024)));
      if (text.includes("\\")) expect(slices).toBeGreaterThan(Math.min(text.length / (64 * 1024), 380));
    }
  });
});

describe("an output", () => {
  test.each([
    ["input-addressed", { path: `${a}-x`, hashAlgorithm: "", hash: "" }],
    ["fixed", { path: `${a}-x`, hashAlgorithm: "r:sha256", hash: hex }],
    ["floating", { path: "", hashAlgorithm: "r:sha256", hash: "" }],
    ["deferred", { path: "", hashAlgorithm: "", hash: "" }],
    ["impure", { path: "", hashAlgorithm: "r:sha256", hash: "impure" }],
  ] as const)("is %s", (kind, value) => {
    expect(outputKind(value)).toBe(kind);
    expect(fixedOutputAddress(value) !== undefined).toBe(kind === "fixed");
  });

  test("that is fixed has the path that its address gives", () => {
    // nix-store --add-fixed sha256 of a file "f" that holds "hi\n".
    const fixed = {
      path: "/nix/store/hrbblgbxbvz8al5a8l85i8giajyajiwj-f",
      hashAlgorithm: "sha256",
      hash: hex,
    };
    const name = outputPathName("f", "out");
    expect(contentAddressPath("/nix/store", name, fixedOutputAddress(fixed)!, [])).toBe(fixed.path);
  });

  test("is named in its path unless it is out", () => {
    expect(outputPathName("hello", "out")).toBe("hello");
    expect(outputPathName("hello", "dev")).toBe("hello-dev");
  });
});

test("the path of a derivation depends on its inputs' paths and not on their order", () => {
  const value = readDerivationText(aterm({ inputSrcs: `"${a}-s","${b}-s"` }));
  const path = derivationPath("/nix/store", "x", value);
  expect(path).toMatch(/^\/nix\/store\/[0-9a-z]{32}-x\.drv$/);
  expect(derivationPath("/nix/store", "x", { ...value, inputSrcs: [`${b}-s`, `${a}-s`] })).toBe(path);
  expect(derivationPath("/nix/store", "x", { ...value, inputSrcs: [`${a}-s`] })).not.toBe(path);
});
