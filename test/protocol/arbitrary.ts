/** Random values of a codec, made from the codec itself: a new row of the table is tested without a word here. */
import fc from "fast-check";
import type { Node } from "../../src/protocol/codec.ts";
import type { CodecContext } from "../../src/protocol/compile.ts";
import { operations } from "../../src/protocol/operations.ts";
import {
  type Dialect,
  FEATURES,
  FEATURES_SINCE,
  type Feature,
  NEWEST_MINOR,
  OLDEST_MINOR,
} from "../../src/protocol/version.ts";

export const STORE_DIR = "/nix/store";

const BASE32 = "0123456789abcdfghijklmnpqrsvwxyz";
const NAME_START = "abcXYZ019+-_?=";

function characters(alphabet: string, minLength: number, maxLength: number): fc.Arbitrary<string> {
  return fc.string({ unit: fc.constantFrom(...alphabet), minLength, maxLength });
}

const storePath = fc
  .tuple(characters(BASE32, 32, 32), characters(NAME_START, 1, 1), characters(`${NAME_START}.`, 0, 20))
  .map(([hash, start, rest]) => `${STORE_DIR}/${hash}-${start}${rest}`);

const anyByte = fc.integer({ min: 0, max: 255 });
/** Byte strings: mostly short, so that every length of padding comes up. */
const byteString = fc.array(anyByte, { maxLength: 20 }).map((bytes) => String.fromCharCode(...bytes));
const bytes = fc.uint8Array({ maxLength: 20 }).map((array) => Buffer.from(array));

const number = fc.oneof(fc.nat(3), fc.nat(), fc.maxSafeNat());
const bigNumber = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

export function arbitraryOf(node: Node, dialect: Dialect): fc.Arbitrary<unknown> {
  switch (node.kind) {
    case "u64":
      return number;
    case "big":
      return bigNumber;
    case "bool":
      return fc.boolean();
    case "string":
      return byteString;
    case "bytes":
      return bytes;
    case "storePath":
      return node.optional ? fc.oneof(fc.constant(""), storePath) : storePath;
    case "list":
      return fc.array(arbitraryOf(node.of, dialect), { maxLength: 4 });
    case "map":
      return fc
        .uniqueArray(fc.tuple(arbitraryOf(node.key, dialect), arbitraryOf(node.value, dialect)), {
          maxLength: 4,
          selector: ([key]) => key,
        })
        .map((entries) => new Map(entries));
    case "optional":
      return fc.option(arbitraryOf(node.of, dialect), { nil: undefined });
    case "struct":
      return fc.record(
        Object.fromEntries(node.fields.map(([name, field]) => [name, arbitraryOf(field, dialect)])),
        {
          noNullPrototype: true,
        },
      );
    case "variant":
      return fc.oneof(
        ...node.cases.map((c, tag) =>
          fc.record({ tag: fc.constant(tag), value: arbitraryOf(c, dialect) }, { noNullPrototype: true }),
        ),
      );
    case "since":
      if (dialect.minor >= node.minor) return arbitraryOf(node.value, dialect);
      return node.before ? arbitraryOf(node.before, dialect) : fc.constant(node.absent);
    case "feature":
      return arbitraryOf(dialect.features.has(node.feature) ? node.with : node.without, dialect);
    case "nothing":
      return fc.constant(undefined);
  }
}

/** The others change no message. */
const SHAPING = FEATURES.filter((feature) => JSON.stringify(operations).includes(`"feature":"${feature}"`));

/** Every version that is served, and at the newest every set of features that change messages. */
export const contexts: readonly CodecContext[] = [
  ...range(OLDEST_MINOR, FEATURES_SINCE - 1).map((minor) => context(minor, [])),
  ...range(FEATURES_SINCE, NEWEST_MINOR).flatMap((minor) =>
    range(0, 2 ** SHAPING.length - 1).map((bits) =>
      context(
        minor,
        SHAPING.filter((_, i) => bits & (1 << i)),
      ),
    ),
  ),
];

export function context(minor: number, features: readonly Feature[] = []): CodecContext {
  return { minor, features: new Set(features), storeDir: STORE_DIR };
}

function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
