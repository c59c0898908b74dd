/** Of strings that are longer than is kept, the front is read, and what follows is read from its place. */
import { expect, test } from "vitest";
import { logCodecs } from "../../src/protocol/log-messages.ts";
import { MessageReader } from "../../src/protocol/message-reader.ts";
import { Encoder } from "../../src/protocol/wire.ts";
import { MemorySource, pieces } from "./memory-stream.ts";

const codecs = logCodecs({ minor: 38, features: new Set(), storeDir: "/nix/store" });
const KEPT = 1000;

function reader(bytes: Buffer, size: number): MessageReader {
  return new MessageReader(new MemorySource(pieces(bytes, size)), 16 * 1024 * 1024, { longestKept: KEPT });
}

test.each([1, 7, 4096, 40_000, 1_000_000])("in pieces of %i bytes", async (size) => {
  const encoder = new Encoder();
  const lengths = [KEPT - 8, KEPT - 1, KEPT, KEPT + 1, 33_333, 300_001];
  for (const length of lengths)
    codecs.result.encode(encoder, {
      id: 5n,
      type: 101,
      fields: [
        { tag: 1, value: "x".repeat(length) },
        { tag: 0, value: BigInt(length) },
      ],
    });
  const stream = reader(encoder.finish(), size);
  for (const length of lengths) {
    const { id, fields } = await stream.read(codecs.result);
    expect(id).toBe(5n);
    expect(fields[1]?.value).toBe(BigInt(length));
    const text = String(fields[0]?.value);
    expect(text).toBe("x".repeat(text.length));
    // What has arrived in full, and is short, is kept as it is.
    expect([length, Math.min(length, KEPT)]).toContain(text.length);
    if (length > 32 * 1024) expect(text).toHaveLength(KEPT);
  }
});
