/** Framed bodies: written, walked and drained, however they are cut. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { EndOfStream } from "../../src/protocol/byte-stream.ts";
import {
  drainFrames,
  END_OF_FRAMES,
  FrameWalker,
  FrameWriter,
  frameHeader,
  MAX_FRAME,
} from "../../src/protocol/frames.ts";
import { operations } from "../../src/protocol/operations.ts";
import { WireError } from "../../src/protocol/wire.ts";
import { cutAt, MemorySource, word } from "./memory-stream.ts";

const anyBytes = fc.uint8Array({ maxLength: 60 }).map((array) => Buffer.from(array));
const someBytes = fc.uint8Array({ minLength: 1, maxLength: 60 }).map((array) => Buffer.from(array));
const places = fc.array(fc.nat(500), { maxLength: 12 });

function frame(data: Buffer): Buffer {
  return Buffer.concat([word(data.length), data]);
}

/** All data that a walker finds, and how many bytes it took. */
function walk(chunks: readonly Buffer[]): { data: Buffer; taken: number; walker: FrameWalker } {
  const walker = new FrameWalker();
  const found: Buffer[] = [];
  let taken = 0;
  for (const chunk of chunks) {
    taken += walker.push(chunk, (data) => found.push(Buffer.from(data)));
    if (walker.done) break;
  }
  return { data: Buffer.concat(found), taken, walker };
}

test("a walker finds data and end wherever the bytes are cut", () => {
  fc.assert(
    fc.property(fc.array(someBytes, { maxLength: 6 }), anyBytes, places, (parts, after, cuts) => {
      const body = Buffer.concat([...parts.map(frame), END_OF_FRAMES]);
      const { data, taken, walker } = walk(cutAt(Buffer.concat([body, after]), cuts));
      expect(data.equals(Buffer.concat(parts))).toBe(true);
      expect(taken).toBe(body.length);
      expect(walker.done).toBe(true);
      expect(walker.length).toBe(data.length);
      expect(walker.push(after)).toBe(0);
    }),
    { numRuns: 500 },
  );
});

test("one byte at a time, a walker takes every byte and is done at the last", () => {
  const body = Buffer.concat([frame(Buffer.from("abc")), frame(Buffer.from("d")), END_OF_FRAMES]);
  const walker = new FrameWalker();
  for (const byte of body) {
    expect(walker.done).toBe(false);
    expect(walker.push(Buffer.from([byte]))).toBe(1);
  }
  expect(walker.done).toBe(true);
});

test("a frame that is too long is refused with its header, before any of its data", () => {
  for (const length of [BigInt(MAX_FRAME) + 1n, 1n << 32n, 1n << 53n, (1n << 64n) - 1n])
    expect(() => new FrameWalker().push(word(length))).toThrow(WireError);
  const walker = new FrameWalker();
  expect(walker.push(word(MAX_FRAME))).toBe(8);
  expect(walker.done).toBe(false);
});

test("what is written is what is walked, in whatever portions it comes", () => {
  fc.assert(
    fc.property(fc.array(anyBytes, { maxLength: 6 }), (portions) => {
      const writer = new FrameWriter();
      const body = Buffer.concat([...portions.flatMap((portion) => writer.frames(portion)), END_OF_FRAMES]);
      const { data, taken } = walk([body]);
      expect(data.equals(Buffer.concat(portions))).toBe(true);
      expect(taken).toBe(body.length);
    }),
    { numRuns: 500 },
  );
});

test("the first frame's header is never the number of an operation", () => {
  const numbers = new Set<number>(Object.values(operations).map(({ number }) => number));
  fc.assert(
    fc.property(someBytes, someBytes, (first, second) => {
      const writer = new FrameWriter();
      const opening = Buffer.concat(writer.frames(first)).readBigUInt64LE();
      expect(opening).toBe(first.length === 1 ? 1n : 2n);
      expect(writer.frames(second)[0]?.equals(frameHeader(second.length))).toBe(true);
    }),
  );
  expect(numbers.has(2)).toBe(false);
});

test("large data is passed on, not copied", () => {
  const data = Buffer.alloc(1 << 16, 7);
  const written = new FrameWriter().frames(data);
  expect(written.at(-1)?.buffer).toBe(data.buffer);
});

test("draining leaves what follows the body, and says when there is no end", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(someBytes, { maxLength: 4 }), anyBytes, places, async (parts, after, cuts) => {
      const body = Buffer.concat([...parts.map(frame), END_OF_FRAMES]);
      const source = new MemorySource(cutAt(Buffer.concat([body, after]), cuts));
      await drainFrames(source, new FrameWalker());
      expect(source.rest.equals(after)).toBe(true);
      const broken = new MemorySource(cutAt(body.subarray(0, -1), cuts));
      await expect(drainFrames(broken, new FrameWalker())).rejects.toBeInstanceOf(EndOfStream);
    }),
  );
});

test("random bytes are a body, the beginning of one, or refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), places, (noise, cuts) => {
      try {
        walk(cutAt(Buffer.from(noise), cuts));
      } catch (error) {
        expect(error).toBeInstanceOf(WireError);
      }
    }),
    { numRuns: 500 },
  );
});
