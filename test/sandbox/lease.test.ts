/** What a dry run names is kept for a while, so that its infos need not be asked for one by one. */
import { expect, test } from "vitest";
import { manyOutputs } from "../../lab/worst-requests.ts";
import { DEFAULT_MEMORY } from "../../src/policy/memory.ts";
import type { PathInfo } from "../../src/policy/view-queries.ts";
import { MemoryBudget } from "../../src/sandbox/memory-budget.ts";
import type { UpstreamConnection } from "../../src/sandbox/upstream/connection.ts";
import { Lease } from "../../src/sandbox/upstream/lease.ts";
import { UpstreamStore } from "../../src/sandbox/upstream/store.ts";
import { StoreView } from "../../src/sandbox/view.ts";
import { parseDerivation } from "../../src/store/derivation.ts";

const DERIVATIONS = 20;

function pathOf(i: number): string {
  return `/nix/store/${String(i).padStart(32, "0")}-x.drv`;
}
function infoOf(i: number, contentAddress = "text:sha256:x"): PathInfo {
  return { path: pathOf(i), narHash: "0".repeat(64), narSize: 120, references: [], contentAddress };
}

/** A daemon that has the paths of even numbers; notes what it is asked, in its order. */
function connection(asked: string[]) {
  const made = {
    destroyed: false,
    outOfStep: false,
    async askEach(name: string, requests: readonly unknown[]) {
      for (const _ of requests) asked.push(name);
      return requests.map(() => 1);
    },
    async ask(name: string, { paths }: { paths: string[] }) {
      asked.push(name);
      return paths.filter((path) => Number(path.slice(11, 43)) % 2 === 0);
    },
    destroy() {
      made.destroyed = true;
    },
  };
  return made as typeof made & UpstreamConnection;
}

/** Whether the info is told while upstream is gone. */
async function told(view: StoreView, i: number): Promise<boolean> {
  return Promise.resolve(view.info(pathOf(i))).then(
    (info) => info !== undefined,
    () => false,
  );
}

test("paths are rooted before it is asked whether they are valid, on one connection", async () => {
  const asked: string[] = [];
  const opened: UpstreamConnection[] = [];
  const lease = new Lease(
    async () => {
      opened.push(connection(asked));
      return opened.at(-1)!;
    },
    () => 600,
  );
  const leased = await lease.hold([pathOf(1), pathOf(2)]);
  expect(leased).toEqual({ valid: new Set([pathOf(2)]), connection: opened[0] });
  expect(asked).toEqual(["AddTempRoot", "AddTempRoot", "QueryValidPaths"]);
  await lease.hold([pathOf(4)]);
  expect(opened).toHaveLength(1);
  lease.close();
  expect(opened[0]?.destroyed).toBe(true);
  expect(await lease.hold([pathOf(4)])).toBeUndefined();
});

test("nothing waits for it: while it is busy, or upstream is not there, nothing is held", async () => {
  const lease = new Lease(
    async () => connection([]),
    () => 600,
  );
  const [first, second] = await Promise.all([lease.hold([pathOf(2)]), lease.hold([pathOf(4)])]);
  expect(first?.valid.size).toBe(1);
  expect(second).toBeUndefined();
  const alone = new Lease(
    () => Promise.reject(new Error("nobody there")),
    () => 600,
  );
  expect(await alone.hold([pathOf(2)])).toBeUndefined();
});

test("infos of what is expected are told without asking, as long as it is held and for what cannot change", async () => {
  const asked: string[] = [];
  const open = connection(asked);
  let gone = false;
  const store = new UpstreamStore(
    async () => {
      if (gone) throw new Error("nobody there");
      return open;
    },
    () => false,
    "/nix/store",
    () => ({ textBytes: 2 ** 20, requestDeadline: 600 }),
    new MemoryBudget(DEFAULT_MEMORY),
  );
  const derivation = parseDerivation(manyOutputs());
  const numbers = Array.from({ length: DERIVATIONS }, (_, i) => i);
  for (const i of numbers) store.remember(infoOf(i, i === 6 ? "" : undefined), derivation);
  const view = new StoreView(store, () => 38, false);
  view.expect(numbers.map(pathOf));
  await new Promise((resolve) => setImmediate(resolve));
  gone = true;
  const known: number[] = [];
  for (const i of numbers) if (await told(view, i)) known.push(i);
  expect(known).toEqual(numbers.filter((i) => i % 2 === 0 && i !== 6));
  expect(await told(view, 2)).toBe(true);
  open.destroy();
  expect(await told(view, 2)).toBe(false);
});
