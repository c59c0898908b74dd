/** Peers that send anything at all: only a wire error or the end of the stream comes of it, at once and for little memory. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { EndOfStream } from "../../src/protocol/byte-stream.ts";
import {
  bool,
  bytes,
  list,
  map,
  optional,
  storePath,
  string,
  struct,
  u64,
  variant,
} from "../../src/protocol/codec.ts";
import { type Compiled, compile } from "../../src/protocol/compile.ts";
import { tableFor } from "../../src/protocol/dialect-table.ts";
import { logCodecs } from "../../src/protocol/log-messages.ts";
import { MessageReader } from "../../src/protocol/message-reader.ts";
import { Decoder, UNDERFLOW, WireError } from "../../src/protocol/wire.ts";
import { context, contexts } from "./arbitrary.ts";
import { cutAt, MemorySource, pieces, text, word } from "./memory-stream.ts";

const LIMIT = 1 << 20;
const plain = context(38);
const PATH = "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo";

/** What a reader makes of the bytes: the first chunk is at hand when it starts, the others arrive. */
async function outcome(codec: Compiled<unknown>, chunks: Buffer[], limit = LIMIT): Promise<unknown> {
  const source = new MemorySource(chunks);
  await source.fill();
  try {
    return { value: await new MessageReader(source, limit).read(codec), left: source.rest.length };
  } catch (error) {
    expect(error instanceof WireError || error instanceof EndOfStream, String(error)).toBe(true);
    return error instanceof WireError ? "refused" : "ended";
  }
}

/** Refused with these bytes at hand, and not only once the rest of the message is there. */
async function refusedAtOnce(codec: Compiled<unknown>, parts: Buffer[], limit = LIMIT): Promise<void> {
  const whole = Buffer.concat(parts);
  const decoder = new Decoder(limit);
  decoder.reset(whole);
  expect(() => codec.decode(decoder)).toThrow(WireError);
  for (const size of [1, 7, 8, 64]) expect(await outcome(codec, pieces(whole, size), limit)).toBe("refused");
}

const HUGE = [LIMIT + 1, 2 ** 32, 2 ** 53 - 1, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n];

test.each(HUGE)("a string of %s bytes is refused by its length alone", async (length) => {
  for (const { node } of [string, bytes, storePath])
    await refusedAtOnce(compile({ node }, plain), [word(length)]);
});

test.each(HUGE)("a list or map of %s elements is refused by its count alone", async (count) => {
  await refusedAtOnce(compile(list(u64), plain), [word(count)]);
  await refusedAtOnce(compile(map(string, u64), plain), [word(count)]);
  await refusedAtOnce(compile(struct({ a: u64, b: list(list(u64)) }), plain), [
    word(1),
    word(1),
    word(count),
  ]);
});

test("a count that the limit cannot hold is refused, one that it can is waited for", async () => {
  const codec = compile(list(u64), plain);
  expect(await outcome(codec, [word(16)], 128)).toBe("ended");
  await refusedAtOnce(codec, [word(17)], 128);
});

test("the limit is that of the whole message, however it arrives", async () => {
  const codec = compile(list(string), plain);
  const message = Buffer.concat([word(2), text("x".repeat(40)), text("y".repeat(40))]);
  expect(await outcome(codec, [message], message.length)).toMatchObject({ left: 0 });
  await refusedAtOnce(codec, [message], message.length - 8);
});

test("numbers of more than 53 bits are refused where a length or a flag is meant", async () => {
  await refusedAtOnce(compile(u64, plain), [word(2n ** 53n)]);
  expect(await outcome(compile(u64, plain), [word(2 ** 53 - 1)])).toEqual({ value: 2 ** 53 - 1, left: 0 });
});

test("flags are 0 or 1", async () => {
  for (const flag of [2, 255, 256, 2n ** 32n, 2n ** 64n - 1n]) {
    await refusedAtOnce(compile(bool, plain), [word(flag)]);
    await refusedAtOnce(compile(optional(string), plain), [word(flag)]);
  }
});

test("cases that nobody knows are refused", async () => {
  for (const tag of [2, 2n ** 32n, 2n ** 64n - 1n])
    await refusedAtOnce(compile(variant(u64, string), plain), [word(tag)]);
});

test("padding is zero, every byte of it", async () => {
  for (let length = 1; length < 8; length++)
    for (let at = length; at < 8; at++) {
      const bad = text("x".repeat(length));
      bad[8 + at] = 1;
      await refusedAtOnce(compile(string, plain), [bad]);
      await refusedAtOnce(compile(bytes, plain), [bad]);
    }
});

test("a map has each key once", async () => {
  const codec = compile(map(string, u64), plain);
  await refusedAtOnce(codec, [word(2), text("a"), word(1), text("a"), word(2)]);
  const odd = [word(2), text("__proto__"), word(1), text("constructor"), word(2)];
  expect(await outcome(codec, odd)).toMatchObject({ left: 0 });
});

test("store paths are in the store, whole, and nothing below them", async () => {
  const codec = compile(storePath, plain);
  expect(await outcome(codec, [text(PATH)])).toEqual({ value: PATH, left: 0 });
  const bad = [
    "",
    "/",
    "/nix/store",
    "/nix/store/",
    PATH.slice(1),
    `${PATH}/bin`,
    `${PATH}/`,
    `${PATH}\n`,
    `${PATH}\0`,
    `${PATH}!out`,
    PATH.replace("g1w7", "G1w7"),
    PATH.replace("g1w7", "e1w7"),
    PATH.replace("/nix/store/", "/nix/store/../store/"),
    PATH.replace("/nix/store/", "/nix/store//"),
    PATH.replace("/nix/store/", "/gnu/store/"),
    PATH.slice(0, -4),
    `${PATH}${"x".repeat(300)}`,
  ];
  for (const path of bad) await refusedAtOnce(codec, [text(path)]);
});

/** Every message that a peer may send in some dialect. */
const everyCodec = contexts.flatMap((ctx) => {
  const rows = [...tableFor(ctx).byNumber.values()].flatMap(({ request, reply }) => [request, reply]);
  return [...rows, ...Object.values(logCodecs(ctx))] as Compiled<unknown>[];
});

/** Words as a message has them, and noise between: gets further into a codec than noise alone. */
const messageLike = fc
  .array(
    fc.oneof(
      fc.nat(4).map(word),
      fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map(word),
      fc.constant(text(PATH)),
      fc.string({ maxLength: 12 }).map(text),
      fc.uint8Array({ maxLength: 9 }).map((array) => Buffer.from(array)),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Buffer.concat(parts));

test("what is a message is one in any pieces, and what is none is none", async () => {
  const places = fc.array(fc.nat(400), { maxLength: 8 });
  let messages = 0;
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...everyCodec), messageLike, places, async (codec, input, cuts) => {
      const whole = await outcome(codec, [input]);
      for (const chunks of [cutAt(input, cuts), pieces(input, 1)]) {
        const parts = await outcome(codec, chunks);
        if (typeof whole === "string") expect(parts).toBeTypeOf("string");
        else expect(parts).toEqual(whole);
      }
      if (typeof whole !== "string") messages++;
    }),
    { numRuns: 3000 },
  );
  expect(messages).toBeGreaterThan(100);
});

test("reading what comes never goes past it, and ends", () => {
  fc.assert(
    fc.property(fc.constantFrom(...everyCodec), messageLike, (codec, input) => {
      const decoder = new Decoder(512);
      decoder.reset(input);
      try {
        codec.read(decoder).next();
      } catch (error) {
        expect(error).toBeInstanceOf(WireError);
      }
      expect(decoder.offset).toBeLessThanOrEqual(input.length);
    }),
    { numRuns: 3000 },
  );
});

test("of a long message that arrives byte by byte every byte is decoded once", async () => {
  const count = 2000;
  const element = (i: number) => text(`element ${i}`);
  const message = Buffer.concat([word(count), ...Array.from({ length: count }, (_, i) => element(i))]);
  const source = new MemorySource(pieces(message, 1));
  let most = 0;
  const consume = source.consume.bind(source);
  source.consume = (bytes) => {
    most = Math.max(most, source.available.length);
    consume(bytes);
  };
  const value = await new MessageReader(source, LIMIT).read(compile(list(string), plain));
  expect(value).toHaveLength(count);
  // What was decoded is not kept until the message is whole: so it is not decoded again.
  expect(most).toBe(element(count - 1).length);
});

test("G8: no more than a window of a long message is decoded before others get a turn", async () => {
  const message = Buffer.concat([word(200_000), Buffer.alloc(200_000 * 8)]);
  const source = new MemorySource([message]);
  await source.fill();
  const consumed: number[] = [];
  const pace = {
    due: true,
    pause: async () => {
      consumed.push(source.position);
    },
  };
  await new MessageReader(source, 4 * LIMIT, { pace }).read(compile(list(string), plain));
  expect(source.position).toBe(message.length);
  for (const [i, position] of consumed.entries())
    expect(position - (consumed[i - 1] ?? 0)).toBeLessThanOrEqual(32 * 1024);
  expect(consumed.length).toBeGreaterThan(message.length / (33 * 1024));
});

test("G8: lists and maps of more elements than are taken are refused by their count alone", async () => {
  const read = (codec: Compiled<unknown>, count: number) =>
    new MessageReader(new MemorySource([word(count)]), 32 * LIMIT, { mostElements: 500_000 }).read(codec);
  await expect(read(compile(list(string), plain), 500_001)).rejects.toThrow("at most 500000");
  await expect(read(compile(list(string), plain), 500_000)).rejects.toBeInstanceOf(EndOfStream);
  await expect(read(compile(map(string, string), plain), 100_001)).rejects.toThrow("at most 100000");
  await expect(read(compile(map(string, string), plain), 100_000)).rejects.toBeInstanceOf(EndOfStream);
});

test("what was announced but not sent takes no memory", () => {
  const promises = [word(LIMIT / 8), word(1), word(LIMIT / 8 - 1)];
  const codec = compile(list(list(list(u64))), plain);
  const before = process.memoryUsage();
  const readers = Array.from({ length: 2000 }, () => {
    const decoder = new Decoder(LIMIT);
    decoder.reset(Buffer.concat(promises));
    const reading = codec.read(decoder);
    reading.next();
    return { decoder, reading };
  });
  const after = process.memoryUsage();
  // 2000 readers that were promised a mebibyte each.
  expect(readers).toHaveLength(2000);
  expect(after.heapUsed - before.heapUsed + after.external - before.external).toBeLessThan(32 << 20);
});

test("what was decoded is a small multiple of what was sent", () => {
  const count = LIMIT / 8 - 1;
  const message = Buffer.alloc(LIMIT);
  message.writeBigUInt64LE(BigInt(count));
  const codec = compile(list(string), plain);
  const decoder = new Decoder(LIMIT);
  decoder.reset(message);
  const before = process.memoryUsage().heapUsed;
  const value = codec.decode(decoder) as string[];
  const after = process.memoryUsage().heapUsed;
  expect(value).toHaveLength(count);
  expect(after - before).toBeLessThan(16 * LIMIT);
});

test("an incomplete message is told by one value, not by an error with a stack", () => {
  const decoder = new Decoder(LIMIT);
  decoder.reset(Buffer.alloc(7));
  let thrown: unknown;
  try {
    decoder.u64();
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBe(UNDERFLOW);
});
