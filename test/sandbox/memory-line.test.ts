import { expect, test } from "vitest";
import { MemoryLine, type Share } from "../../src/sandbox/memory-line.ts";

/** Who got a share, in that order. */
class Granted {
  readonly names: string[] = [];
  readonly shares: Share[] = [];

  async take(line: MemoryLine, owner: object, bytes: number, name: string): Promise<void> {
    const share = await line.take(owner, bytes);
    this.names.push(name);
    this.shares.push(share);
  }
}

/** Lets everything happen that waits for nothing else. */
async function settled(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

const a = { name: "a" };
const b = { name: "b" };
const c = { name: "c" };

test("G8: sandboxes take turns for memory, however many requests one of them has", async () => {
  const line = new MemoryLine(100);
  const first = await line.take(a, 100);
  const granted = new Granted();
  for (let i = 0; i < 5; i++) void granted.take(line, a, 100, "a");
  void granted.take(line, b, 100, "b");
  void granted.take(line, c, 100, "c");
  first.release();
  for (let i = 0; i < 7; i++) {
    await settled();
    expect(granted.names).toHaveLength(i + 1);
    granted.shares[i]!.release();
  }
  expect(granted.names.join("")).toBe("abcaaaa");
  expect([line.held, line.waiting]).toEqual([0, 0]);
});

test("G8: a large share is granted although small ones are asked for all the time", async () => {
  const line = new MemoryLine(100);
  const small = await Promise.all([a, b, c].map((owner) => line.take(owner, 25)));
  const granted = new Granted();
  const large = { name: "large" };
  void granted.take(line, large, 100, "large");
  for (const owner of [a, b, c]) void granted.take(line, owner, 25, "small");
  for (const share of small) share.release();
  await settled();
  expect(granted.names).toEqual(["large"]);
  granted.shares[0]!.release();
  await settled();
  expect(granted.names).toEqual(["large", "small", "small", "small"]);
});

test("G8: one sandbox holds a quarter at most, or a single share", async () => {
  const line = new MemoryLine(100);
  const granted = new Granted();
  for (let i = 0; i < 4; i++) void granted.take(line, a, 10, "a");
  void granted.take(line, b, 60, "b");
  await settled();
  expect(granted.names).toEqual(["a", "a", "b"]);
  void granted.take(line, b, 10, "b");
  granted.shares[0]!.release();
  await settled();
  expect(granted.names).toEqual(["a", "a", "b", "a"]);
});

test("G8: who leaves while it waits gets nothing, and holds up nobody", async () => {
  const line = new MemoryLine(100);
  const first = await line.take(a, 50);
  const leaving = new AbortController();
  const left = line.take(b, 100, leaving.signal);
  const granted = new Granted();
  void granted.take(line, c, 50, "c");
  await settled();
  expect(granted.names).toEqual([]);
  leaving.abort(new Error("gone"));
  await expect(left).rejects.toThrow("gone");
  await settled();
  expect(granted.names).toEqual(["c"]);
  first.release();
  granted.shares[0]!.release();
  expect([line.held, line.waiting]).toEqual([0, 0]);
  await expect(line.take(b, 1, leaving.signal)).rejects.toThrow("gone");
});

test("G8: what is given back is given back once", async () => {
  const line = new MemoryLine(100);
  const share = await line.take(a, 80);
  share.shrink(30);
  share.shrink(50);
  expect([share.bytes, line.held]).toEqual([30, 30]);
  share.release();
  share.release();
  share.shrink(10);
  expect(line.held).toBe(0);
});

test("G8: a share that is larger than the whole is an error, not a wait without end", async () => {
  await expect(new MemoryLine(100).take(a, 101)).rejects.toThrow("runtime.memory is too small");
});
