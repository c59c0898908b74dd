/**
 * The readers against what real clients and daemons said to each other (test/corpus/record.ts): every byte of
 * both directions is understood, and written again as it was.
 */
import { describe, expect, test } from "vitest";
import { compile } from "../../src/protocol/compile.ts";
import { FrameWalker } from "../../src/protocol/frames.ts";
import { type OperationName, operationNames, operations } from "../../src/protocol/operations.ts";
import { validPathInfo } from "../../src/protocol/types.ts";
import { Decoder } from "../../src/protocol/wire.ts";
import { NarWalker } from "../../src/store/nar-walker.ts";
import { readIndex, recordings } from "../corpus/recording.ts";
import { type Replay, replay } from "../corpus/replay.ts";
import { context } from "./arbitrary.ts";

const corpus = recordings();
const index = readIndex();
const minorOf: Record<string, number> = { "2.3": 21, "2.8": 34, "2.26": 38, "2.34": 38 };

test("the corpus has every pair of versions, and is what its index says", () => {
  expect(corpus.map(({ name }) => name).sort()).toEqual(Object.keys(index).sort());
  const pairs = new Set(corpus.map(({ name }) => name.split("-").slice(0, 2).join("-")));
  const versions = Object.keys(minorOf);
  expect(pairs).toEqual(
    new Set(versions.flatMap((client) => versions.map((daemon) => `${client}-${daemon}`))),
  );
});

describe.each(corpus)("$name", ({ name, client, daemon }) => {
  test("is read to the end, in one piece and in many", async () => {
    const whole = await replay(client, daemon);
    expect(whole.exchanges.map(({ operation }) => operation)).toEqual(index[name]?.operations);
    const [clientVersion = "", daemonVersion = ""] = name.split("-");
    const minor = Math.min(minorOf[clientVersion] ?? 0, minorOf[daemonVersion] ?? 0);
    expect(whole.clientGreeting.minor).toBe(minor);
    expect(whole.daemonGreeting.minor).toBe(minor);
    expect(whole.clientGreeting.clientMinor).toBe(minorOf[clientVersion]);
    expect(whole.daemonGreeting.daemonMinor).toBe(minorOf[daemonVersion]);
    expect(index[name]?.minor).toBe(minor);
    // What we say to a daemon is what a client of that version said; 2.3 asks for a CPU besides.
    if (minor === minorOf[clientVersion] && clientVersion !== "2.3")
      expect(client.subarray(0, whole.greeted.length).equals(whole.greeted)).toBe(true);
    for (const cuts of [everyNth(13, client, daemon), everyNth(1000, client, daemon)])
      expect(withoutBodies(await replay(client, daemon, cuts))).toEqual(withoutBodies(whole));
  });
});

function everyNth(step: number, ...streams: Buffer[]): number[] {
  const longest = Math.max(...streams.map(({ length }) => length));
  return Array.from({ length: Math.floor(longest / step) }, (_, i) => (i + 1) * step);
}

function withoutBodies({ exchanges }: Replay): unknown {
  return exchanges.map(({ body, ...rest }) => ({ ...rest, body: body.length }));
}

/** The operations that clients of today send, and that some command of the corpus makes them send. */
const RECORDED = [
  [
    "IsValidPath",
    "QueryReferrers",
    "AddToStore",
    "AddTextToStore",
    "BuildPaths",
    "EnsurePath",
    "AddTempRoot",
  ],
  ["AddIndirectRoot", "SyncWithGC", "FindRoots", "SetOptions", "CollectGarbage", "QueryAllValidPaths"],
  ["QueryPathInfo", "QueryValidPaths", "QuerySubstitutablePaths", "QueryValidDerivers", "OptimiseStore"],
  ["VerifyStore", "BuildDerivation", "AddSignatures", "NarFromPath", "AddToStoreNar", "QueryMissing"],
  [
    "QueryDerivationOutputMap",
    "QueryRealisation",
    "AddMultipleToStore",
    "AddBuildLog",
    "BuildPathsWithResults",
  ],
].flat() as OperationName[];

test("the corpus has the operations that everyday commands use", () => {
  const seen = new Set(Object.values(index).flatMap((entry) => entry.operations));
  expect(operationNames.filter((name) => seen.has(name))).toEqual(
    operationNames.filter((n) => RECORDED.includes(n)),
  );
});

test("no client sends an operation outside of the versions that the table names", () => {
  for (const { minor, operations: sent } of Object.values(index))
    for (const name of sent as OperationName[]) {
      const row: { since: number; until?: number } = operations[name];
      expect(minor, name).toBeGreaterThanOrEqual(row.since);
      if (row.until !== undefined) expect(minor, name).toBeLessThanOrEqual(row.until);
    }
});

test("the stream of AddMultipleToStore is a count, then info and NAR of each path", async () => {
  let items = 0;
  for (const { client, daemon } of corpus)
    for (const { operation, body } of (await replay(client, daemon)).exchanges)
      if (operation === "AddMultipleToStore") items += readItems(unframed(body));
  expect(items).toBeGreaterThan(0);
});

function unframed(body: Buffer): Buffer {
  const data: Buffer[] = [];
  new FrameWalker().push(body, (slice) => data.push(slice));
  return Buffer.concat(data);
}

/** @returns how many paths the stream has; every byte of it is looked at. */
function readItems(stream: Buffer): number {
  const codec = compile(validPathInfo, context(16));
  const count = Number(stream.readBigUInt64LE());
  let at = 8;
  for (let i = 0; i < count; i++) {
    const decoder = new Decoder(1 << 16);
    decoder.reset(stream.subarray(at));
    const info = codec.decode(decoder);
    const walker = new NarWalker();
    at += decoder.offset + walker.push(stream.subarray(at + decoder.offset));
    expect(walker.done).toBe(true);
    expect(walker.length).toBe(info.narSize);
  }
  expect(at).toBe(stream.length);
  return count;
}
