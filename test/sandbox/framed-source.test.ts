import fc from "fast-check";
import { expect, test } from "vitest";
import { DEFAULT_MEMORY } from "../../src/policy/memory.ts";
import { END_OF_FRAMES, frameHeader } from "../../src/protocol/frames.ts";
import { Body } from "../../src/sandbox/forward/body.ts";
import { FramedSource } from "../../src/sandbox/forward/framed-source.ts";
import { MemoryBudget } from "../../src/sandbox/memory-budget.ts";
import { RequestMemory } from "../../src/sandbox/request-memory.ts";
import { MemorySource, pieces } from "../protocol/memory-stream.ts";

function uncounted(): RequestMemory {
  return new RequestMemory(new MemoryBudget(DEFAULT_MEMORY), { owner: {}, longest: 0, cutOff: () => {} });
}

function framed(contents: Buffer, size: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < contents.length; at += size) {
    const data = contents.subarray(at, at + size);
    parts.push(frameHeader(data.length), data);
  }
  return Buffer.concat([...parts, END_OF_FRAMES]);
}

test("contents are the same in frames of any size, consumed in pieces of any size", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.uint8Array({ minLength: 1, maxLength: 2000 }),
      fc.integer({ min: 1, max: 300 }),
      fc.integer({ min: 1, max: 300 }),
      async (bytes, frame, piece) => {
        const contents = Buffer.from(bytes);
        const body = new Body(
          "framed",
          new MemorySource([framed(contents, frame)]),
          contents.length,
          uncounted(),
        );
        const source = new FramedSource(body);
        const read: Buffer[] = [];
        for (let more = true; more; ) {
          // Lets some gather, as a reader does that waits for a whole message.
          while (more && source.available.length < piece) more = await source.fill();
          const taken = source.available.subarray(0, piece);
          read.push(Buffer.from(taken));
          source.consume(taken.length);
        }
        while (source.available.length > 0) {
          read.push(Buffer.from(source.available));
          source.consume(source.available.length);
        }
        expect(Buffer.concat(read).equals(contents)).toBe(true);
      },
    ),
  );
});

test("G8: a message that arrives byte by byte is not copied again for each byte", async () => {
  const length = 20_000;
  // A frame of one byte is nine: each arrives by itself.
  const trickle = new MemorySource(pieces(framed(Buffer.alloc(length, 1), 1), 9));
  const body = new Body("framed", trickle, length, uncounted());
  const source = new FramedSource(body);
  let memory: ArrayBufferLike | undefined;
  let moves = 0;
  while (await source.fill()) {
    const { buffer } = source.available;
    if (buffer !== memory) moves++;
    memory = buffer;
  }
  expect(source.available.length).toBe(length);
  // Doubling; the many small ones at the beginning come out of a pool.
  expect(moves).toBeLessThan(40);
});
