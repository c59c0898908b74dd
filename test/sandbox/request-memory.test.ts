import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { DEFAULT_MEMORY, MEDIUM_REQUEST, REQUEST_COST, UNCOUNTED } from "../../src/policy/memory.ts";
import { MemoryBudget } from "../../src/sandbox/memory-budget.ts";
import { RequestMemory } from "../../src/sandbox/request-memory.ts";

const MiB = 1024 * 1024;
const LONGEST = 32 * MiB;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function requestOf(budget: MemoryBudget, owner: object = {}) {
  const cutOff = vi.fn();
  return { memory: new RequestMemory(budget, { owner, longest: LONGEST, cutOff }), cutOff };
}

test("short requests pass without asking, also where all is in use", async () => {
  const budget = new MemoryBudget(DEFAULT_MEMORY);
  await budget.long.take({}, budget.long.size);
  await budget.medium.take({}, budget.medium.size);
  expect(requestOf(budget).memory.reach(UNCOUNTED)).toBeUndefined();
});

test("a request holds what it may need while it arrives, then what it takes, and in the end nothing", async () => {
  const budget = new MemoryBudget(DEFAULT_MEMORY);
  const { memory } = requestOf(budget);
  await memory.reach(100_000);
  expect(budget.held).toBe(MEDIUM_REQUEST * REQUEST_COST);
  expect(memory.reach(MEDIUM_REQUEST)).toBeUndefined();
  await memory.reach(2 * MiB);
  expect(budget.held).toBe(LONGEST * REQUEST_COST);
  memory.keep();
  // Its body.
  expect(memory.reach(MiB)).toBeUndefined();
  memory.arrived();
  expect(budget.held).toBe(3 * MiB * REQUEST_COST);
  expect(memory.reach(UNCOUNTED)).toBeUndefined();
  memory.release();
  expect(budget.held).toBe(0);
  expect(vi.getTimerCount()).toBe(0);
});

test("a request that is longer than any may be, with its text, is refused", async () => {
  const { memory } = requestOf(new MemoryBudget(DEFAULT_MEMORY));
  await memory.reach(20 * MiB);
  memory.keep();
  await expect(memory.reach(13 * MiB)).rejects.toThrow("limits.request_bytes");
  memory.release();
});

test("G8: a client that keeps others waiting for memory is cut off; one that does not may take its time", async () => {
  const budget = new MemoryBudget(DEFAULT_MEMORY);
  const slow = requestOf(budget);
  await slow.memory.reach(2 * MiB);
  await vi.advanceTimersByTimeAsync(3600_000);
  expect(slow.cutOff).not.toHaveBeenCalled();
  const other = requestOf(budget);
  const waiting = other.memory.reach(2 * MiB);
  await vi.advanceTimersByTimeAsync(20_000);
  expect(slow.cutOff).toHaveBeenCalledOnce();
  slow.memory.release();
  await waiting;
  expect(other.cutOff).not.toHaveBeenCalled();
  other.memory.release();
  expect([budget.held, budget.waiting]).toEqual([0, 0]);
});

test("G8: a client that leaves while it waits waits no more", async () => {
  const budget = new MemoryBudget(DEFAULT_MEMORY);
  const [first, second] = [requestOf(budget), requestOf(budget)];
  await first.memory.reach(2 * MiB);
  const waiting = second.memory.reach(2 * MiB);
  second.memory.leave();
  await expect(waiting).rejects.toThrow("closed the connection");
  second.memory.release();
  first.memory.release();
  expect([budget.held, budget.waiting]).toEqual([0, 0]);
});

test("G8: names of builds are held apart from requests, up to a bound for each sandbox", () => {
  const budget = new MemoryBudget(DEFAULT_MEMORY);
  const [a, b] = [{}, {}];
  const ends = [budget.toBuild(a, 5 * MiB), budget.toBuild(b, 8 * MiB), budget.toBuild(a, UNCOUNTED)];
  expect(() => budget.toBuild(a, 4 * MiB)).toThrow("runtime.memory");
  expect(budget.held).toBe(13 * MiB * REQUEST_COST);
  for (const end of ends) end();
  expect(budget.held).toBe(0);
  budget.toBuild(a, 8 * MiB)();
});

test("a reply that lists a whole view counts, a short one does not", async () => {
  const budget = new MemoryBudget(DEFAULT_MEMORY);
  const { memory } = requestOf(budget);
  expect(memory.reachReply(1000)).toBeUndefined();
  await memory.reachReply(Number.POSITIVE_INFINITY);
  expect(budget.held).toBe(LONGEST * REQUEST_COST);
  memory.release();
});

test("G8: scanning for a whole store, however large, waits for what it holds, and fits", async () => {
  const budget = new MemoryBudget(DEFAULT_MEMORY);
  const share = await budget.toScan({}, Number.POSITIVE_INFINITY);
  expect(budget.held).toBe(budget.parsing.size);
  share.release();
  const small = await budget.toScan({}, 100);
  expect(budget.held).toBe(0);
  small.release();
});
