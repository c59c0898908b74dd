/**
 * Real traffic, damaged: bits flipped, cut short, spliced with other traffic, lengths and counts exchanged. The
 * readers refuse it or read on; they never do anything else. Bounded by a number of runs, not by a clock.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { EndOfStream } from "../../src/protocol/byte-stream.ts";
import { WireError } from "../../src/protocol/wire.ts";
import { NarError } from "../../src/store/nar-walker.ts";
import { recordings } from "../corpus/recording.ts";
import { replay } from "../corpus/replay.ts";

const RUNS = 4000;
const corpus = recordings().filter(({ client, daemon }) => client.length + daemon.length < 8192);
const streams = corpus.flatMap(({ client, daemon }) => [client, daemon]);

type Damage = (bytes: Buffer) => Buffer;

const place = fc.nat(8192);
function at(bytes: Buffer, where: number): number {
  return where % (bytes.length + 1);
}
function wordAt(bytes: Buffer, where: number): number {
  return (where % Math.max(1, bytes.length >> 3)) << 3;
}

const INTERESTING = [
  0n,
  1n,
  2n,
  3n,
  7n,
  8n,
  9n,
  44n,
  1000n,
  1001n,
  1n << 20n,
  1n << 31n,
  1n << 32n,
  1n << 53n,
  1n << 63n,
];
const word = fc.oneof(
  fc.constantFrom(...INTERESTING),
  fc.constantFrom(-1n, -8n).map((n) => BigInt.asUintN(64, n)),
);

const flipBit = fc.tuple(place, fc.nat(7)).map(
  ([where, bit]): Damage =>
    (bytes) => {
      const copy = Buffer.from(bytes);
      const i = where % Math.max(1, copy.length);
      if (copy.length > 0) copy[i] = copy[i]! ^ (1 << bit);
      return copy;
    },
);
const setWord = fc.tuple(place, word).map(
  ([where, value]): Damage =>
    (bytes) => {
      const copy = Buffer.from(bytes);
      if (copy.length >= 8) copy.writeBigUInt64LE(value, wordAt(copy, where));
      return copy;
    },
);
const changeWord = fc.tuple(place, fc.integer({ min: -9, max: 9 })).map(
  ([where, by]): Damage =>
    (bytes) => {
      const copy = Buffer.from(bytes);
      const i = wordAt(copy, where);
      if (copy.length >= 8)
        copy.writeBigUInt64LE(BigInt.asUintN(64, copy.readBigUInt64LE(i) + BigInt(by)), i);
      return copy;
    },
);
const cutOff = place.map(
  (where): Damage =>
    (bytes) =>
      bytes.subarray(0, at(bytes, where)),
);
const cutOut = fc.tuple(place, fc.nat(64)).map(
  ([where, length]): Damage =>
    (bytes) =>
      Buffer.concat([bytes.subarray(0, at(bytes, where)), bytes.subarray(at(bytes, where) + length)]),
);
const splice = fc.tuple(fc.constantFrom(...streams), place, place).map(
  ([other, here, there]): Damage =>
    (bytes) =>
      Buffer.concat([bytes.subarray(0, at(bytes, here) & ~7), other.subarray(at(other, there) & ~7)]),
);
const twice = fc.tuple(place, fc.nat(200)).map(
  ([where, length]): Damage =>
    (bytes) =>
      Buffer.concat([bytes.subarray(0, at(bytes, where) + length), bytes.subarray(at(bytes, where))]),
);

const damages = fc.array(fc.oneof(flipBit, setWord, changeWord, cutOff, cutOut, splice, twice), {
  minLength: 1,
  maxLength: 4,
});
const damaged = fc
  .tuple(fc.constantFrom(...corpus), damages, fc.constantFrom("client", "daemon", "both"))
  .map(([{ client, daemon }, steps, side]) => ({
    client: side === "daemon" ? client : steps.reduce((bytes, step) => step(bytes), client),
    daemon: side === "client" ? daemon : steps.reduce((bytes, step) => step(bytes), daemon),
  }));

test("damaged traffic is refused or understood, and what is understood is written as it was", async () => {
  const outcomes = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(damaged, fc.array(place, { maxLength: 6 }), async ({ client, daemon }, cuts) => {
      const outcome = await replay(client, daemon, cuts).then(
        () => "understood",
        (error: unknown) => {
          const expected =
            error instanceof WireError || error instanceof EndOfStream || error instanceof NarError;
          expect(expected, error instanceof Error ? error.stack : String(error)).toBe(true);
          return (error as Error).name;
        },
      );
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    }),
    { numRuns: RUNS },
  );
  // The damage reaches all of the readers, and some of it, in texts, is none.
  expect([...outcomes.keys()]).toEqual(expect.arrayContaining(["understood", "WireError", "EndOfStream"]));
});
