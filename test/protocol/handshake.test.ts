/** The greeting: byte for byte, both sides against each other, and against peers that do something else. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type ByteSource, EndOfStream } from "../../src/protocol/byte-stream.ts";
import {
  type ClientGreeting,
  type DaemonGreeting,
  greetClient,
  greetDaemon,
} from "../../src/protocol/handshake.ts";
import { MessageReader } from "../../src/protocol/message-reader.ts";
import {
  type Dialect,
  FEATURES,
  type Feature,
  knownFeatures,
  NEWEST_MINOR,
  OLDEST_MINOR,
  versionFromWire,
} from "../../src/protocol/version.ts";
import { WireError } from "../../src/protocol/wire.ts";
import { cutAt, MemorySource, pieces, text, word } from "./memory-stream.ts";

const LIMIT = 4096;
const MAGIC_1 = Buffer.from("6378696e00000000", "hex");
const MAGIC_2 = Buffer.from("6f69786400000000", "hex");

function dialect(minor: number, features: readonly Feature[] = []): Dialect {
  return { minor, features: new Set(features) };
}

/** What the daemon's side makes of these bytes of a client, and what it sends. */
async function asDaemon(
  chunks: Buffer[],
  offered: Dialect,
): Promise<{ sent: Buffer; greeting: ClientGreeting }> {
  const sent: Buffer[] = [];
  const reader = new MessageReader(new MemorySource(chunks), LIMIT);
  const greeting = await greetClient(reader, (bytes) => sent.push(bytes), offered, "nix-broker");
  return { sent: Buffer.concat(sent), greeting };
}

async function asClient(
  chunks: Buffer[],
  wanted: Dialect,
): Promise<{ sent: Buffer; greeting: DaemonGreeting }> {
  const sent: Buffer[] = [];
  const reader = new MessageReader(new MemorySource(chunks), LIMIT);
  const greeting = await greetDaemon(reader, (bytes) => sent.push(bytes), wanted);
  return { sent: Buffer.concat(sent), greeting };
}

/** A client of 1.`minor`, as Nix writes it. */
function clientBytes(minor: number, features: readonly string[] = []): Buffer {
  const list = minor >= 38 ? [word(features.length), ...features.map(text)] : [];
  return Buffer.concat([MAGIC_1, word(0x100 + minor), ...list, word(0), word(0)]);
}

/** A daemon of 1.`minor`, as Nix writes it. */
function daemonBytes(minor: number, features: readonly string[] = [], trust = 2): Buffer {
  return Buffer.concat([
    MAGIC_2,
    word(0x100 + minor),
    ...(minor >= 38 ? [word(features.length), ...features.map(text)] : []),
    ...(minor >= 33 ? [text("2.34.8")] : []),
    ...(minor >= 35 ? [word(trust)] : []),
  ]);
}

test("of Determinate's features those that change a path's info are never agreed on", async () => {
  const determinate = ["addTempRoots", "provenance", "queryPathInfos", "versionedAddToStoreMultiple"];
  const { greeting } = await asClient([daemonBytes(38, determinate)], dialect(38, FEATURES));
  expect([...greeting.features].sort()).toEqual(["addTempRoots", "queryPathInfos"]);
  const client = await asDaemon([clientBytes(38, determinate)], dialect(38, FEATURES));
  expect([...client.greeting.features].sort()).toEqual(["addTempRoots", "queryPathInfos"]);
});

test("the daemon's side, by version", async () => {
  const offered = dialect(38, ["disable-set-options", "add-to-store-scanning"]);
  const greeted = Buffer.concat([MAGIC_2, word(0x126)]);
  const old = await asDaemon([clientBytes(21)], offered);
  expect(old.sent.equals(greeted)).toBe(true);
  expect(old.greeting).toEqual({ minor: 21, clientMinor: 21, features: new Set(), tooOld: false });
  const withText = await asDaemon([clientBytes(34)], offered);
  expect(withText.sent.equals(Buffer.concat([greeted, text("nix-broker")]))).toBe(true);
  const withTrust = await asDaemon([clientBytes(35)], offered);
  expect(withTrust.sent.equals(Buffer.concat([greeted, text("nix-broker"), word(2)]))).toBe(true);
  const newest = await asDaemon([clientBytes(39, ["disable-set-options", "submit-output"])], offered);
  const lists = [word(2), text("add-to-store-scanning"), text("disable-set-options")];
  expect(newest.sent.equals(Buffer.concat([greeted, ...lists, text("nix-broker"), word(2)]))).toBe(true);
  expect(newest.greeting).toEqual({
    minor: 38,
    clientMinor: 39,
    features: new Set(["disable-set-options"]),
    tooOld: false,
  });
});

test("the daemon's side sends what it has to say only when the client has to be waited for", async () => {
  const steps: string[] = [];
  const [hello, ...rest] = [
    Buffer.concat([MAGIC_1, word(0x126)]),
    word(0),
    Buffer.concat([word(0), word(0)]),
  ];
  const source = new MemorySource([hello!, ...rest]);
  const fill = source.fill.bind(source);
  source.fill = () => {
    steps.push("wait");
    return fill();
  };
  const send = (bytes: Buffer, isLast: boolean): void =>
    void steps.push(`${bytes.length}${isLast ? " at last" : ""}`);
  await greetClient(new MessageReader(source, LIMIT), send, dialect(38), "nix-broker");
  // It has begun to wait when it says something: nothing that it could have said later is said before.
  expect(steps).toEqual(["wait", "wait", "16", "wait", "8", "32 at last"]);
});

test("a client of another major version is told ours before it is refused", async () => {
  const sent: Buffer[] = [];
  const reader = new MessageReader(new MemorySource([Buffer.concat([MAGIC_1, word(0x226)])]), LIMIT);
  await expect(greetClient(reader, (bytes) => sent.push(bytes), dialect(38), "nix-broker")).rejects.toThrow(
    WireError,
  );
  expect(Buffer.concat(sent).equals(Buffer.concat([MAGIC_2, word(0x126)]))).toBe(true);
});

test("a client's CPU affinity is read and ignored", async () => {
  const bytes = Buffer.concat([MAGIC_1, word(0x115), word(1), word(7), word(0)]);
  expect((await asDaemon([bytes], dialect(38))).greeting.minor).toBe(21);
});

test("the client's side, by version", async () => {
  const wanted = dialect(38, ["disable-set-options"]);
  const hello = [MAGIC_1, word(0x126)];
  const rest = [word(0), word(0)];
  const old = await asClient([daemonBytes(21)], wanted);
  expect(old.sent.equals(Buffer.concat([...hello, ...rest]))).toBe(true);
  expect(old.greeting).toMatchObject({ minor: 21, daemonMinor: 21, nixVersion: undefined, trust: 0 });
  const newest = await asClient([daemonBytes(39, ["disable-set-options", "x"], 1)], wanted);
  expect(newest.sent.equals(Buffer.concat([...hello, word(1), text("disable-set-options"), ...rest]))).toBe(
    true,
  );
  expect(newest.greeting).toEqual({
    minor: 38,
    features: new Set(["disable-set-options"]),
    daemonMinor: 39,
    nixVersion: "2.34.8",
    trust: 1,
  });
});

const anyDialect = fc.record({
  minor: fc.integer({ min: OLDEST_MINOR, max: NEWEST_MINOR }),
  features: fc.subarray([...FEATURES]).map((features) => new Set(features)),
});

test("both sides agree, whatever each of them offers", async () => {
  await fc.assert(
    fc.asyncProperty(anyDialect, anyDialect, async (offered, wanted) => {
      const [toDaemon, toClient] = [new Pipe(), new Pipe()];
      const [daemon, client] = await Promise.all([
        greetClient(new MessageReader(toDaemon, LIMIT), (bytes) => toClient.push(bytes), offered, "text"),
        greetDaemon(new MessageReader(toClient, LIMIT), (bytes) => toDaemon.push(bytes), wanted),
      ]);
      expect(client.minor).toBe(Math.min(offered.minor, wanted.minor));
      expect(daemon.minor).toBe(client.minor);
      expect(daemon.features).toEqual(client.features);
      const both = [...offered.features].filter((feature) => wanted.features.has(feature));
      expect(client.features).toEqual(new Set(client.minor < 38 ? [] : both));
      expect(daemon.tooOld).toBe(false);
      expect([toDaemon.available.length, toClient.available.length]).toEqual([0, 0]);
    }),
  );
});

test("it does not matter how the greeting arrives", async () => {
  const bytes = clientBytes(38, ["disable-set-options", "add-to-store-scanning"]);
  const whole = await asDaemon([bytes], dialect(38, FEATURES));
  for (let size = 1; size < 24; size++) {
    const part = await asDaemon(pieces(bytes, size), dialect(38, FEATURES));
    expect(part.sent.equals(whole.sent)).toBe(true);
    expect(part.greeting).toEqual(whole.greeting);
  }
  const answer = daemonBytes(38, ["disable-set-options"]);
  for (let size = 1; size < 24; size++)
    expect((await asClient(pieces(answer, size), dialect(38, FEATURES))).greeting.nixVersion).toBe("2.34.8");
});

test("a greeting that breaks off is the end of the stream", async () => {
  for (const [bytes, run] of [
    [clientBytes(38, ["x"]), (chunks: Buffer[]) => asDaemon(chunks, dialect(38))],
    [daemonBytes(38, ["x"]), (chunks: Buffer[]) => asClient(chunks, dialect(38))],
  ] as const)
    for (let cut = 0; cut < bytes.length; cut++)
      await expect(run([bytes.subarray(0, cut)])).rejects.toBeInstanceOf(EndOfStream);
});

test("versions that are too old are told from those that are not ours", async () => {
  expect((await asDaemon([clientBytes(20)], dialect(38))).greeting.tooOld).toBe(true);
  const ancient = Buffer.concat([MAGIC_1, word(0x10a)]);
  expect((await asDaemon([ancient], dialect(38))).greeting).toMatchObject({ minor: 10, tooOld: true });
  await expect(asClient([daemonBytes(20)], dialect(38))).rejects.toThrow(/1\.20.*1\.21/);
  await expect(asDaemon([Buffer.concat([MAGIC_1, word(0x226)])], dialect(38))).rejects.toThrow(WireError);
  await expect(asClient([Buffer.concat([MAGIC_2, word(0x226)])], dialect(38))).rejects.toThrow(WireError);
  expect(versionFromWire(0x1_0000_0126)).toBeUndefined();
  await expect(asDaemon([MAGIC_2], dialect(38))).rejects.toThrow(WireError);
  await expect(asClient([MAGIC_1], dialect(38))).rejects.toThrow(WireError);
});

test("features that nobody knows are dropped, doubles too", () => {
  expect(knownFeatures(["x", "disable-set-options", "disable-set-options"])).toEqual(
    new Set(["disable-set-options"]),
  );
  expect(knownFeatures(["disable-set-options"], ["x"])).toEqual(new Set());
});

test("random bytes only ever give a wire error or the end of the stream", async () => {
  const start = fc.constantFrom(
    Buffer.alloc(0),
    MAGIC_1,
    MAGIC_2,
    Buffer.concat([MAGIC_1, word(0x126)]),
    Buffer.concat([MAGIC_2, word(0x126)]),
  );
  const places = fc.array(fc.nat(200), { maxLength: 5 });
  await fc.assert(
    fc.asyncProperty(start, fc.uint8Array({ maxLength: 120 }), places, async (front, noise, cuts) => {
      const bytes = Buffer.concat([front, noise]);
      for (const run of [asDaemon, asClient])
        await run(cutAt(bytes, cuts), dialect(38, FEATURES)).catch((error: unknown) => {
          expect(error instanceof WireError || error instanceof EndOfStream, String(error)).toBe(true);
        });
    }),
    { numRuns: 1000 },
  );
});

/** One direction of a connection in memory. */
class Pipe implements ByteSource {
  available: Buffer = Buffer.alloc(0);
  private wake: (() => void) | undefined;

  push(bytes: Buffer): void {
    this.available = Buffer.concat([this.available, bytes]);
    this.wake?.();
  }

  consume(bytes: number): void {
    this.available = this.available.subarray(bytes);
  }

  async fill(want = 1): Promise<boolean> {
    while (this.available.length < want)
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    return true;
  }
}
