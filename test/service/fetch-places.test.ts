/** Who may fetch, and for how long, while others wait. */
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FetchPlaces, type Place } from "../../src/service/fetch-places.ts";

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const KiB = 1024;

let places: FetchPlaces;
beforeEach(() => {
  vi.useFakeTimers();
  places = new FetchPlaces();
});
afterEach(() => {
  vi.useRealTimers();
});

interface Download {
  readonly owner: object;
  place: Place | undefined;
  rounds: number;
  got: number;
  end(): void;
}

/** Downloads at a speed that never ends, and again whenever its place was taken away. */
function download(owner: object, bytesPerSecond: number): Download {
  const gone = new AbortController();
  const one: Download = {
    owner,
    place: undefined,
    rounds: 0,
    got: 0,
    end: () => {
      gone.abort(new Error("not wanted"));
      one.place?.leave();
      one.place = undefined;
    },
  };
  const begin = async (): Promise<void> => {
    one.place = await places.take(owner, gone.signal, () => {
      one.place?.leave();
      one.place = undefined;
      begin().catch(() => undefined);
    });
    one.rounds++;
    one.got = 0;
  };
  begin().catch(() => undefined);
  setInterval(() => {
    if (!one.place) return;
    one.got += bytesPerSecond;
    one.place.progress(one.got);
  }, SECOND);
  return one;
}

function four(owner: object, bytesPerSecond: number): Download[] {
  return [1, 2, 3, 4].map(() => download(owner, bytesPerSecond));
}
function held(downloads: readonly Download[]): number {
  return downloads.filter(({ place }) => place !== undefined).length;
}
async function pass(time: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(time);
}

test("while nobody waits, the slowest download goes on", async () => {
  const [one, other] = [four({}, 1 * KiB), four({}, 1 * KiB)];
  await pass(60 * MINUTE);
  expect([...one, ...other].map(({ rounds }) => rounds)).toEqual(Array(8).fill(1));
});

test("one sandbox that waits for more than it may have takes nothing from others", async () => {
  const greedy = {};
  const [all, more] = [four(greedy, 1 * KiB), four(greedy, 1 * KiB)];
  const other = four({}, 1 * KiB);
  await pass(60 * MINUTE);
  expect([held(all), held(more), held(other)]).toEqual([4, 0, 4]);
  expect(other.map(({ rounds }) => rounds)).toEqual([1, 1, 1, 1]);
});

test("G8: two sandboxes that hold all places give one to a third within little more than a minute, however fast they are", async () => {
  const hostile = [...four({}, 10_000 * KiB), ...four({}, 10_000 * KiB)];
  await pass(10 * SECOND);
  const third = download({}, 100 * KiB);
  await pass(45 * SECOND);
  // Everybody keeps a place for a minute.
  expect(held([third])).toBe(0);
  await pass(15 * SECOND);
  expect([held([third]), held(hostile)]).toEqual([1, 7]);
  await pass(60 * MINUTE);
  expect(third.rounds).toBe(1);
});

test("places are shared evenly in the end, and who is even takes nothing from the others", async () => {
  const [first, second] = [four({}, 100 * KiB), four({}, 200 * KiB)];
  await pass(SECOND);
  const third = four({}, 300 * KiB);
  await pass(10 * MINUTE);
  expect([first, second, third].map(held).sort()).toEqual([2, 3, 3]);
  const before = third.map(({ rounds }) => rounds);
  await pass(4 * MINUTE);
  expect(third.map(({ rounds }) => rounds)).toEqual(before);
});

test("the slowest of a sandbox that has too many goes first, and what has arrived is not taken away", async () => {
  const owner = {};
  const [slow, slower] = [download(owner, 90 * KiB), download(owner, 70 * KiB)];
  const fast = [download(owner, 900 * KiB), download(owner, 900 * KiB)];
  const others = four({}, 900 * KiB);
  await pass(2 * MINUTE);
  slower.place?.settle();
  download({}, 900 * KiB);
  await pass(6 * SECOND);
  expect(held([slower, ...fast])).toBe(3);
  expect([held([slow]), held(others)]).toEqual([0, 4]);
});

test("G8: eight sandboxes with a slow download each do not keep out a ninth, and those that are not slow go on", async () => {
  const slow = [1, 2, 3].map(() => download({}, 2 * KiB));
  const others = [1, 2, 3, 4, 5].map(() => download({}, 65 * KiB));
  const ninth = download({}, 500 * KiB);
  await pass(2 * MINUTE);
  expect([held(slow), held(others), held([ninth])]).toEqual([2, 5, 1]);
});

test("G8: a download that was fast and then drips is slow", async () => {
  const dripping = [1, 2, 3, 4, 5, 6, 7, 8].map(() => download({}, 1 * KiB));
  for (const one of dripping) one.got = 0;
  await pass(0);
  // A gigabyte at once.
  for (const one of dripping) one.got = 1_000_000 * KiB;
  await pass(2 * MINUTE + 10 * SECOND);
  const ninth = download({}, 500 * KiB);
  await pass(MINUTE);
  expect(held([ninth])).toBe(1);
});

test("G8: eight sandboxes that are fast for ever keep out a ninth for a quarter of an hour at most", async () => {
  const fast = [1, 2, 3, 4, 5, 6, 7, 8].map(() => download({}, 10_000 * KiB));
  const ninth = download({}, 500 * KiB);
  await pass(14 * MINUTE);
  expect(held([ninth])).toBe(0);
  await pass(MINUTE + 10 * SECOND);
  expect([held([ninth]), held(fast)]).toEqual([1, 7]);
});

test("nothing is left to do when all have gone", async () => {
  const all = [...four({}, KiB), ...four({}, KiB), ...four({}, KiB)];
  await pass(2 * MINUTE);
  for (const one of all) one.end();
  vi.clearAllTimers();
  await pass(0);
  const next = await places.take({}, new AbortController().signal, () => undefined);
  expect(vi.getTimerCount()).toBe(0);
  next.leave();
});
