import { setImmediate } from "node:timers/promises";
import { expect, test } from "vitest";
import { Lane } from "../../src/sandbox/turns.ts";

test("G8: the event loop runs between any two turns, and sandboxes take turns", async () => {
  const many = new Lane();
  const one = new Lane();
  const turns: string[] = [];
  const take = async (lane: Lane, name: string) => {
    for (let i = 0; i < 3; i++) {
      await lane.pause();
      turns.push(name);
    }
  };
  let done = false;
  const work = Promise.all([...Array.from({ length: 4 }, () => take(many, "many")), take(one, "one")]);
  void work.then(() => {
    done = true;
  });
  let most = 0;
  while (!done) {
    const before = turns.length;
    await setImmediate();
    most = Math.max(most, turns.length - before);
  }
  expect(most).toBe(1);
  expect(turns.slice(0, 6)).toEqual(["many", "one", "many", "one", "many", "one"]);
  expect(turns.length).toBe(15);
});

test("G8: a turn ends after a few milliseconds, and new work waits for its turn first", async () => {
  const lane = new Lane();
  await lane.pause();
  const until = performance.now() + 6;
  while (performance.now() < until);
  expect(lane.due).toBe(true);
});
