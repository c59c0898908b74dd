/**
 * G8, the budget of time: whatever a client asks within its limits, the loop is given back after a bounded amount of work.
 * Nothing here looks at a clock: what is counted is the work between two turns. `npm run bench -- --only longest-wait` has the time.
 */
import { afterAll, beforeAll, expect, test } from "vitest";
import { manyOutputs, numberedPath, worstRequests } from "../../lab/worst-requests.ts";
import { DEFAULT_MEMORY } from "../../src/policy/memory.ts";
import { builtinProfiles } from "../../src/policy/profiles.ts";
import type { PathInfo } from "../../src/policy/view-queries.ts";
import { type DialectTable, tableFor } from "../../src/protocol/dialect-table.ts";
import {
  type OperationName,
  operationNames,
  operations,
  type RequestOf,
} from "../../src/protocol/operations.ts";
import { NEWEST_MINOR, versionToWire } from "../../src/protocol/version.ts";
import { Decoder, Encoder } from "../../src/protocol/wire.ts";
import { type ClientTransport, Connection } from "../../src/sandbox/connection.ts";
import type { Fetchers } from "../../src/sandbox/fetchers.ts";
import { MemoryBudget } from "../../src/sandbox/memory-budget.ts";
import { Quota } from "../../src/sandbox/quota.ts";
import type { Recorder } from "../../src/sandbox/recorder.ts";
import { Lane } from "../../src/sandbox/turns.ts";
import { type UpstreamFacts, UpstreamPool } from "../../src/sandbox/upstream/pool.ts";
import { UpstreamStore } from "../../src/sandbox/upstream/store.ts";
import { ClosedView } from "../../src/sandbox/view.ts";
import { Waits } from "../../src/sandbox/waits.ts";
import { parseDerivation } from "../../src/store/derivation.ts";
import { context, STORE_DIR } from "../protocol/arbitrary.ts";
import { MemorySource, pieces, word } from "../protocol/memory-stream.ts";
import { bareSandbox } from "./bare-sandbox.ts";

/** Numbers read and written, paths looked up: each is well below a microsecond. */
const MOST_WORK = 10_000;
/** The bound does not depend on it, so it is smaller than the default. */
const REQUEST_BYTES = 1024 * 1024;
const paths = Array.from({ length: 10_000 }, (_, i) => numberedPath(i, "x"));
const derivation = numberedPath(paths.length, "many.drv");

const many = parseDerivation(manyOutputs());
const infos = [...paths, derivation].map(infoOf);

let work = 0;
let most = 0;
let turns = 0;
const restore: (() => void)[] = [];

beforeAll(() => {
  count(Decoder.prototype, "u64");
  count(Encoder.prototype, "u64");
  count(ClosedView.prototype, "info");
  const due = Object.getOwnPropertyDescriptor(Lane.prototype, "due")!;
  const { pause } = Lane.prototype;
  // Every place where the loop would be given back, if it were time.
  Object.defineProperty(Lane.prototype, "due", { configurable: true, get: () => true });
  Lane.prototype.pause = async () => endTurn();
  restore.push(() => {
    Object.defineProperty(Lane.prototype, "due", due);
    Lane.prototype.pause = pause;
  });
});

afterAll(() => {
  for (const undo of restore) undo();
});

function count<K extends string>(prototype: { [_ in K]: (argument: never) => unknown }, name: K): void {
  const original = prototype[name];
  prototype[name] = function (this: unknown, argument: never) {
    work++;
    return original.call(this, argument);
  };
  restore.push(() => {
    prototype[name] = original;
  });
}

function endTurn(): void {
  most = Math.max(most, work);
  work = 0;
  turns++;
}

const cases = [NEWEST_MINOR, 21].flatMap((minor) => {
  const table = tableFor(context(minor));
  return operationNames
    .filter((name) => table.byNumber.has(operations[name].number))
    .map((name) => [name, minor, table] as const);
});

test.each(cases)(
  "G8: %s in protocol 1.%i gives the loop back in time, however long",
  async (name, _, table) => {
    const options = { table, requestBytes: REQUEST_BYTES, paths, derivation };
    for (const { what, bytes, turns: least } of worstRequests(name, options)) {
      work = most = turns = 0;
      const recorded = await ask(table, bytes);
      endTurn();
      expect(recorded, what).toContain(name);
      expect(most, what).toBeLessThan(MOST_WORK);
      expect(turns, what).toBeGreaterThanOrEqual(least);
    }
  },
);

test("G8: requests that are sent without waiting for replies give the loop back in between", async () => {
  const table = tableFor(context(NEWEST_MINOR));
  const request = encoded(table, "IsValidPath", { path: paths[0]! });
  work = most = turns = 0;
  const recorded = await ask(table, Buffer.concat(Array<Buffer>(20_000).fill(request)));
  endTurn();
  expect(recorded).toHaveLength(20_000);
  expect(most).toBeLessThan(MOST_WORK);
});

test("G8: a request that is not short waits for its turn before it is read", async () => {
  const table = tableFor(context(NEWEST_MINOR));
  work = most = turns = 0;
  await ask(table, encoded(table, "IsValidPath", { path: paths[0]! }));
  expect(turns).toBe(0);
  await ask(table, encoded(table, "QueryValidPaths", { paths: paths.slice(0, 50), substitute: 0 }));
  expect(turns).toBe(1);
});

function encoded<N extends OperationName>(table: DialectTable, name: N, request: RequestOf<N>): Buffer {
  const encoder = new Encoder();
  encoder.u64(table.byName[name].number);
  table.byName[name].request.encode(encoder, request);
  return encoder.finish();
}

/** Knows what upstream has, which cannot be reached. */
class PoolOfNobody extends UpstreamPool {
  private readonly table: DialectTable;

  constructor(table: DialectTable) {
    super({ connect: nobody, storeDir: STORE_DIR, size: 0, allowTrusted: false });
    this.table = table;
  }

  override get facts(): UpstreamFacts {
    return { minor: this.table.minor, features: this.table.features, nixVersion: undefined };
  }
}

function nobody(): Promise<never> {
  return Promise.reject(new Error("nobody is there"));
}

/** Serves one request. @returns the operations that were recorded */
async function ask(table: DialectTable, request: Buffer): Promise<string[]> {
  const { build } = builtinProfiles(["x86_64-linux"]);
  const limits = { ...build.limits, requestBytes: REQUEST_BYTES + 4096, textBytes: 2 * REQUEST_BYTES };
  const quota = new Quota(limits, () => undefined);
  const memory = new MemoryBudget(DEFAULT_MEMORY);
  const store = new UpstreamStore(
    nobody,
    () => false,
    STORE_DIR,
    () => limits,
    memory,
  );
  store.remember(infoOf(derivation), many);
  const view = new ClosedView(store, () => table.minor);
  view.add(infos);
  const sandbox = bareSandbox({
    profile: { ...build, admitFixedOutputs: false, limits },
    view,
    quota,
    store,
  });
  const pool = new PoolOfNobody(table);
  const recorded: string[] = [];
  const recorder: Recorder = {
    intend: () => 1,
    synced: async () => {},
    request: ({ operation, reason }) => recorded.push(operation === "unknown" ? reason : operation),
    build: () => undefined,
    fetch: () => undefined,
    failure: undefined,
  };
  const waits = new Waits({ buildUsers: 8, onRefused: () => undefined });
  const fetchers: Fetchers = {
    privateHosts: [],
    start: () => Promise.reject(new Error("there is no network")),
  };
  const greeting = [
    word(0x6e697863),
    word(versionToWire(table.minor)),
    ...(table.minor >= NEWEST_MINOR ? [word(0)] : []),
    word(0),
    word(0),
  ];
  const client: ClientTransport = Object.assign(
    new MemorySource([...greeting, ...pieces(request, 64 * 1024)]),
    {
      write: () => undefined,
      writableLength: 0,
      bulk: () => {},
      destroy: () => {},
      end: () => {},
      hungUp: false,
      onEnd: undefined,
      onClose: undefined,
    },
  );
  const connection = new Connection(client, sandbox, { pool, store, recorder, waits, fetchers, memory }, 1);
  await connection.serve();
  client.onClose?.();
  return recorded;
}

function infoOf(path: string): PathInfo {
  // The first is referred to by all others, the second refers to all.
  const references = path === paths[1] ? paths.slice(2) : [paths[0]!];
  return { path, narHash: "0".repeat(64), narSize: 1, references, contentAddress: "text:sha256:x" };
}
