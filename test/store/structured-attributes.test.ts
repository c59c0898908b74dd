/** The scanner of `__json`, against JSON.parse. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DerivationError } from "../../src/store/derivation-error.ts";
import { atOnce } from "../../src/store/slices.ts";
import { type JsonValue, structuredAttributes } from "../../src/store/structured-attributes.ts";

const wanted = new Set(["a", "url", "__noChroot"]);

function scan(text: string | Buffer, names: ReadonlySet<string> = wanted): Map<string, JsonValue> {
  return atOnce(structuredAttributes(Buffer.from(text), names));
}

/** As the scanner gives it: objects as Maps, strings as their bytes. */
function expected(value: unknown): unknown {
  const bytes = (text: string) => Buffer.from(text).toString("latin1");
  if (typeof value === "string") return bytes(value);
  if (Array.isArray(value)) return value.map(expected);
  if (typeof value === "object" && value !== null)
    return new Map(Object.entries(value).map(([key, item]) => [bytes(key), expected(item)]));
  return value;
}

function wantedOf(object: object): Map<string, unknown> {
  return new Map(
    Object.entries(object)
      .filter(([name]) => wanted.has(name))
      .map(([name, value]) => [name, expected(value)]),
  );
}

const name = fc.oneof(fc.constantFrom(...wanted), fc.string({ unit: "grapheme", maxLength: 4 }));
const value = fc.jsonValue({ depthSize: "medium", noUnicodeString: false } as fc.JsonSharedConstraints);

describe("structured attributes", () => {
  test("are what JSON.parse makes of the wanted names, however they are written", () => {
    fc.assert(
      fc.property(
        fc.dictionary(name, value, { noNullPrototype: true }),
        fc.constantFrom(0, 1, "\t", "\r\n "),
        fc.boolean(),
        (object, space, escaped) => {
          let text = JSON.stringify(object, undefined, space);
          fc.pre(text.isWellFormed() && JSON.parse(text) !== undefined);
          if (escaped)
            text = text.replace(
              /[_\u0080-\uffff]/g,
              (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
            );
          expect(scan(text)).toEqual(wantedOf(JSON.parse(text) as object));
        },
      ),
      { numRuns: 500 },
    );
  });

  test("are accepted exactly where JSON.parse accepts an object, whatever happened to the text", () => {
    const change = fc.tuple(
      fc.nat(),
      fc.constantFrom(
        ...'"\\,:[]{} \t\n\0-+.0123eEtruefalsn\x1f\x7f',
        "\\u00e4",
        "\\ud83d\\ude00",
        "é",
        "1e5",
        "-0",
        "null",
      ),
      fc.constantFrom(0, 1, 2),
    );
    fc.assert(
      fc.property(
        fc.dictionary(name, value, { noNullPrototype: true }),
        fc.array(change, { minLength: 1, maxLength: 3 }),
        (object, changes) => {
          let text = JSON.stringify(object);
          for (const [position, insertion, removed] of changes) {
            const at = position % (text.length + 1);
            text = text.slice(0, at) + insertion + text.slice(at + removed);
          }
          fc.pre(text.isWellFormed());
          let parsed: unknown;
          try {
            parsed = JSON.parse(text);
          } catch {
            parsed = undefined;
          }
          const isObject = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
          // JSON.parse takes half surrogate pairs, and Nix does not.
          fc.pre(!isObject || isWellFormed(parsed));
          if (isObject) expect(scan(text)).toEqual(wantedOf(parsed as object));
          else expect(() => scan(text)).toThrow(DerivationError);
        },
      ),
      { numRuns: 3000 },
    );
  });

  test("are taken for UTF-8 exactly where a strict decoder does", () => {
    const byte = fc.oneof(
      fc.integer({ min: 0x20, max: 0x7e }).filter((one) => one !== 0x22 && one !== 0x5c),
      fc.constantFrom(
        0x80,
        0x8f,
        0x90,
        0x9f,
        0xa0,
        0xbf,
        0xc0,
        0xc1,
        0xc2,
        0xdf,
        0xe0,
        0xed,
        0xef,
        0xf0,
        0xf4,
        0xf5,
        0xff,
      ),
    );
    fc.assert(
      fc.property(fc.array(byte, { maxLength: 6 }), (bytes) => {
        const text = Buffer.concat([Buffer.from('{"a":"'), Buffer.from(bytes), Buffer.from('"}')]);
        let decoded: string | undefined;
        try {
          decoded = new TextDecoder("utf-8", { fatal: true }).decode(text);
        } catch {
          decoded = undefined;
        }
        if (decoded === undefined) expect(() => scan(text)).toThrow("expected UTF-8");
        else expect(scan(text).get("a")).toBe(Buffer.from(bytes).toString("latin1"));
      }),
      { numRuns: 3000 },
    );
  });

  test("of two equal names are the last one's, as in Nix", () => {
    expect(scan('{"a":false,"b":{"a":3},"a":true}')).toEqual(new Map([["a", true]]));
    expect(scan('{"a":1,"\\u0061":2}')).toEqual(new Map([["a", 2]]));
  });

  test.each([
    ["no JSON", "{"],
    ["no object", "[]"],
    ["null", "null"],
    ["nothing", ""],
    ["bytes that are not UTF-8", Buffer.from('{"a":"\xff"}', "latin1")],
    ["half a surrogate pair", '{"b":"\\ud800"}'],
    ["the other half", '{"b":"\\udc00"}'],
    ["half a pair and another character", '{"b":"\\ud800\\u0041"}'],
    ["half a surrogate pair in a name", '{"\\ud800":1}'],
    ["a byte order mark", "\ufeff{}"],
    ["more after a NUL, which some versions of Nix read as the end", "{}\0x"],
    ["a structure too deep", `{"b":${"[".repeat(100_000)}${"]".repeat(100_000)}}`],
    ["a structure of 129 levels", `{"b":${"[".repeat(128)}1${"]".repeat(128)}}`],
    ["a number without end", `{"b":${"1".repeat(10_000)}}`],
    ["a cut-off literal", '{"b":tru}'],
    ["a leading zero", '{"b":01}'],
    ["the wrong bracket", '{"b":[1}}'],
  ])("that are %s are refused", (_, json) => {
    expect(() => scan(json)).toThrow(DerivationError);
  });

  test("may be 128 levels deep", () => {
    expect(scan(`{"b":${"[".repeat(127)}1${"]".repeat(127)},"a":1}`)).toEqual(new Map([["a", 1]]));
  });

  test("G8: structured attributes that Nix reads itself are bounded, the others are not", () => {
    const list = (items: number) => `[${"1,".repeat(items - 1)}1]`;
    expect(scan(`{"b":${list(1_000_000)},"a":${list(19_999)}}`).get("a")).toHaveLength(19_999);
    expect(() => scan(`{"a":${list(20_000)}}`)).toThrow('hold more than 20000 values, in "a"');
    expect(() => scan(`{"a":"${"x".repeat(600_000)}"}`)).toThrow('hold more than 524288 bytes, in "a"');
    expect(() => scan(`{${'"a":[1],'.repeat(20_000)}"a":1}`), "again and again").toThrow("20000 values");
  });

  test.each([
    ["empty objects", (size: number) => `{"b":[${"{},".repeat(size / 3)}{}]}`],
    ["one string", (size: number) => `{"b":"${"x".repeat(size)}"}`],
    ["escapes", (size: number) => `{"b":"${"\\u00e4".repeat(size / 6)}"}`],
    ["one name", (size: number) => `{"${"x".repeat(size)}":1}`],
    ["names", (size: number) => `{${'"":1,'.repeat(size / 5)}"":1}`],
    ["white space", (size: number) => `{${" ".repeat(size)}}`],
    ["numbers", (size: number) => `{"b":[${`${"1".repeat(4000)},`.repeat(size / 4001)}1]}`],
  ])("G8: of a mebibyte of %s are read in slices of a bounded number of bytes", (_, make) => {
    const text = Buffer.from(make(1024 * 1024));
    const work = structuredAttributes(text, wanted);
    let slices = 0;
    while (!work.next().done) slices++;
    expect(slices).toBeGreaterThanOrEqual(Math.floor(text.length / (24 * 1024)));
  });
});

function isWellFormed(parsed: unknown): boolean {
  if (typeof parsed === "string") return parsed.isWellFormed();
  if (typeof parsed !== "object" || parsed === null) return true;
  return Object.entries(parsed).every(([key, item]) => key.isWellFormed() && isWellFormed(item));
}
