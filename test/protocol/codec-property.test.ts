/** decode ∘ encode is the identity for every row of the operation table, in every dialect. */
import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Node } from "../../src/protocol/codec.ts";
import { type CodecContext, type Compiled, compile } from "../../src/protocol/compile.ts";
import {
  activityResult,
  errorMessage,
  startActivity,
  stopActivity,
} from "../../src/protocol/log-messages.ts";
import { MessageReader } from "../../src/protocol/message-reader.ts";
import { type Operation, operationNames, operations } from "../../src/protocol/operations.ts";
import { dialectName } from "../../src/protocol/version.ts";
import { Decoder, Encoder, UNDERFLOW } from "../../src/protocol/wire.ts";
import { atOnce } from "../../src/store/slices.ts";
import { arbitraryOf, contexts } from "./arbitrary.ts";
import { MemorySource, pieces } from "./memory-stream.ts";

const LIMIT = 1 << 20;

const messages: ReadonlyArray<readonly [string, Node]> = [
  ...operationNames.flatMap((name) => {
    const row = operations[name] as Operation;
    return [
      [`${name} request`, row.request.node],
      [`${name} reply`, row.reply.node],
    ] as const;
  }),
  ["log: start of an activity", startActivity.node],
  ["log: end of an activity", stopActivity.node],
  ["log: result of an activity", activityResult.node],
  ["log: error", errorMessage.node],
];

/** The value on the wire, and its codec, for some dialect. */
interface Sample {
  readonly codec: Compiled<unknown>;
  readonly value: unknown;
  readonly bytes: Buffer;
}

function sampleOf(node: Node, context: CodecContext): fc.Arbitrary<Sample> {
  const codec = compile({ node }, context);
  return arbitraryOf(node, context).map((value) => ({ codec, value, bytes: encode(codec, value) }));
}

function encode(codec: Compiled<unknown>, value: unknown): Buffer {
  const encoder = new Encoder();
  codec.encode(encoder, value);
  return encoder.finish();
}

const anySample = fc
  .constantFrom(...contexts)
  .chain((context) => fc.constantFrom(...messages).chain(([, node]) => sampleOf(node, context)));

test.each(messages)("%s comes back as it was, in every dialect", (_name, node) => {
  for (const context of contexts)
    fc.assert(
      fc.property(sampleOf(node, context), ({ codec, value, bytes }) => {
        const decoder = new Decoder(LIMIT);
        decoder.reset(bytes);
        const back = codec.decode(decoder);
        expect(isDeepStrictEqual(back, value), `${dialectName(context)}: ${bytes.toString("hex")}`).toBe(
          true,
        );
        expect(decoder.offset).toBe(bytes.length);
        expect(bytes.length % 8).toBe(0);
        expect(encode(codec, back).equals(bytes)).toBe(true);
      }),
      { numRuns: 10 },
    );
});

test("what is read as it arrives is what is decoded at once, wherever the bytes are cut", () => {
  fc.assert(
    fc.property(anySample, ({ codec, value, bytes }) => {
      const followed = Buffer.concat([bytes, Buffer.alloc(16, 0xff)]);
      for (let cut = 0; cut <= bytes.length; cut++) {
        const decoder = new Decoder(LIMIT);
        decoder.reset(bytes.subarray(0, cut));
        const reading = codec.read(decoder);
        let step = reading.next();
        expect(step.done).toBe(cut === bytes.length);
        const taken = decoder.offset;
        expect(taken).toBeLessThanOrEqual(cut);
        decoder.reset(followed.subarray(taken), taken);
        if (!step.done) step = reading.next();
        expect(step.done && isDeepStrictEqual(step.value, value)).toBe(true);
        if (cut < bytes.length) expect(taken + decoder.offset).toBe(bytes.length);
      }
    }),
    { numRuns: 300 },
  );
});

test("no more bytes are asked for than the message has, and all of them before its end", () => {
  fc.assert(
    fc.property(anySample, ({ codec, bytes }) => {
      const decoder = new Decoder(LIMIT);
      decoder.reset(bytes.subarray(0, 0));
      const reading = codec.read(decoder);
      let taken = 0;
      let have = 0;
      for (let step = reading.next(); !step.done; step = reading.next()) {
        taken += decoder.offset;
        expect(taken + step.value).toBeGreaterThan(have);
        have = taken + step.value;
        decoder.reset(bytes.subarray(taken, have), taken);
      }
      expect(have).toBe(bytes.length);
    }),
    { numRuns: 300 },
  );
});

test("what is written in slices is what is encoded at once", () => {
  fc.assert(
    fc.property(anySample, ({ codec, value, bytes }) => {
      const encoder = new Encoder();
      if (codec.write) atOnce(codec.write(encoder, value));
      else codec.encode(encoder, value);
      expect(encoder.finish().equals(bytes)).toBe(true);
    }),
    { numRuns: 300 },
  );
});

test("a message that is cut short is never taken for a whole one", () => {
  fc.assert(
    fc.property(anySample, ({ codec, bytes }) => {
      const decoder = new Decoder(LIMIT);
      for (let cut = 0; cut < bytes.length; cut++) {
        decoder.reset(bytes.subarray(0, cut));
        expect(thrownBy(() => codec.decode(decoder))).toBe(UNDERFLOW);
      }
    }),
    { numRuns: 200 },
  );
});

test("a reader gives the same value however the bytes arrive, and leaves what follows", async () => {
  await fc.assert(
    fc.asyncProperty(anySample, fc.integer({ min: 1, max: 40 }), async ({ codec, value, bytes }, size) => {
      const next = Buffer.from("the next message");
      const source = new MemorySource(pieces(Buffer.concat([bytes, next]), size));
      const back = await new MessageReader(source, LIMIT).read(codec);
      expect(isDeepStrictEqual(back, value)).toBe(true);
      expect(source.rest.equals(next)).toBe(true);
    }),
    { numRuns: 300 },
  );
});

function thrownBy(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return "nothing";
}
