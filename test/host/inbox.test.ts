import fc from "fast-check";
import { expect, test } from "vitest";
import { Inbox } from "../../src/host/inbox.ts";

type Step =
  | { kind: "read"; size: number }
  | { kind: "push"; size: number }
  | { kind: "consume"; share: number }
  | { kind: "gather"; want: number }
  | { kind: "bulk"; on: boolean };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant("read" as const), size: fc.integer({ min: 1, max: 200_000 }) }),
  fc.record({ kind: fc.constant("read" as const), size: fc.integer({ min: 1, max: 50 }) }),
  fc.record({ kind: fc.constant("push" as const), size: fc.integer({ min: 1, max: 5_000 }) }),
  fc.record({ kind: fc.constant("consume" as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  fc.record({ kind: fc.constant("consume" as const), share: fc.constant(1) }),
  fc.record({ kind: fc.constant("gather" as const), want: fc.constantFrom(0, 100_000, 400_000) }),
  fc.record({ kind: fc.constant("bulk" as const), on: fc.boolean() }),
);

/** Writes the bytes that follow each other in a stream of period 251 (a prime, so that no buffer size hides a shift). */
function writePattern(target: Buffer, count: number, from: number): void {
  for (let i = 0; i < count; i++) target[i] = (from + i) % 251;
}

function isPattern(bytes: Buffer, from: number): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== (from + i) % 251) return false;
  return true;
}

test("whatever the order of reads and consumption, bytes come out once, in order, and views stay intact", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const inbox = new Inbox();
      let target = inbox.arm();
      let received = 0;
      let consumed = 0;
      let view = inbox.available;
      let viewFrom = 0;
      for (const next of steps) {
        if (next.kind === "read") {
          if (!inbox.hasRoom) continue;
          const count = Math.min(next.size, target.length);
          writePattern(target, count, received);
          inbox.received(count);
          target = inbox.arm();
          received += count;
        } else if (next.kind === "push") {
          if (!inbox.hasRoom) continue;
          const chunk = Buffer.alloc(next.size);
          writePattern(chunk, next.size, received);
          inbox.push(chunk);
          received += next.size;
        } else if (next.kind === "consume") {
          const count = Math.floor(inbox.available.length * next.share);
          inbox.consume(count);
          consumed += count;
          view = inbox.available;
          viewFrom = consumed;
        } else if (next.kind === "gather") {
          inbox.allow(next.want);
          inbox.gather();
          view = inbox.available;
          viewFrom = consumed;
          expect(inbox.hasMore).toBe(false);
          expect(view.length).toBe(received - consumed);
        } else {
          inbox.setBulk(next.on);
        }
        expect(isPattern(view, viewFrom)).toBe(true);
        expect(isPattern(inbox.available, consumed)).toBe(true);
        expect(inbox.pending).toBe(received - consumed);
      }
    }),
    { numRuns: 400 },
  );
});

test("more than is available cannot be consumed", () => {
  const inbox = new Inbox();
  inbox.push(Buffer.from("abc"));
  expect(() => inbox.consume(4)).toThrow(RangeError);
  expect(inbox.available.toString()).toBe("abc");
});

test("two inboxes never share the bytes that they hold", () => {
  const one = new Inbox();
  const two = new Inbox();
  one.arm().write("first");
  one.received(5);
  two.arm().write("other");
  two.received(5);
  expect(one.available.toString()).toBe("first");
  expect(two.available.toString()).toBe("other");
});

test("reading stops at the limit and a longer message lifts it", () => {
  const inbox = new Inbox();
  inbox.arm();
  inbox.received(64 * 1024);
  expect(inbox.hasRoom).toBe(false);
  inbox.allow(64 * 1024 + 1);
  expect(inbox.hasRoom).toBe(true);
  inbox.consume(64 * 1024);
  inbox.arm();
  inbox.received(64 * 1024);
  expect(inbox.hasRoom).toBe(false);
});
