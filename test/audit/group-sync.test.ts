/** Many who wait for the disk at once. */
import { expect, test } from "vitest";
import { GroupSync } from "../../src/audit/group-sync.ts";

interface Sync {
  /** How many writes it covers. */
  readonly covers: number;
  finish(error?: Error): void;
}

/** Syncs that end when the test says so. */
function watched() {
  const state = { writes: 0 };
  const syncs: Sync[] = [];
  const group = new GroupSync(
    () =>
      new Promise((resolve, reject) => {
        syncs.push({
          covers: state.writes,
          finish: (error) => (error === undefined ? resolve() : reject(error)),
        });
      }),
  );
  const write = (): Promise<void> => {
    state.writes += 1;
    return group.request();
  };
  return { syncs, write };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("those who ask at once share one sync", async () => {
  const { syncs, write } = watched();
  const all = Promise.all([write(), write(), write()]);
  await turn();
  expect(syncs.map(({ covers }) => covers)).toEqual([3]);
  syncs[0]?.finish();
  await all;
});

test("G7: who asks while a sync runs is not told that it is done by that one", async () => {
  const { syncs, write } = watched();
  const done: string[] = [];
  const first = write().then(() => done.push("first"));
  await turn();
  const later = Promise.all([write(), write()]).then(() => done.push("later"));
  await turn();
  expect(syncs).toHaveLength(1);
  syncs[0]?.finish();
  await first;
  await turn();
  expect(done).toEqual(["first"]);
  expect(syncs.map(({ covers }) => covers)).toEqual([1, 3]);
  syncs[1]?.finish();
  await later;
  expect(done).toEqual(["first", "later"]);
});

test("a sync that fails fails for those who waited for it, and for no others", async () => {
  const { syncs, write } = watched();
  const failing = write();
  await turn();
  const later = write();
  syncs[0]?.finish(new Error("I/O error"));
  await expect(failing).rejects.toThrow("I/O error");
  await turn();
  syncs[1]?.finish();
  await later;
});
