/** Bytes that are not the protocol, or that are too much of it: the service lives, and others are served. */
import { readdirSync, readFileSync } from "node:fs";
import type net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { connectAs } from "../../lab/line.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { FEATURES, versionToWire } from "../../src/protocol/version.ts";
import { text, word } from "../protocol/memory-stream.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { type Attack, describeAttack, extremes, newest } from "./suite.ts";

const MAGIC = 0x6e697863;
const MiB = 1024 * 1024;
const greeting = Buffer.concat([word(MAGIC), word(versionToWire(34)), word(0), word(0)]);

/** A small generator of numbers, the same in every run. */
function* random(seed: number): Generator<number, never> {
  for (let state = seed; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state >>> 8;
  }
}

function randomBytes(numbers: Iterator<number, never>): Buffer {
  const bytes = Buffer.alloc(numbers.next().value % 400);
  for (let i = 0; i < bytes.length; i++) {
    // Mostly small numbers, which are operations and lengths.
    const value = numbers.next().value;
    bytes[i] = i % 8 === 0 ? value % 50 : value % 9 === 0 ? value : 0;
  }
  return bytes;
}

/** Connects however many do so at once: the kernel's queue is short. */
async function knock(path: string): Promise<net.Socket> {
  for (;;) {
    try {
      return await connectAs(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      await sleep(5);
    }
  }
}

/** Sends bytes and hangs up, or waits for the service to do so. */
async function say(path: string, bytes: Buffer): Promise<void> {
  const socket = await connectAs(path);
  socket.resume();
  await new Promise<void>((resolve) => socket.write(bytes, () => resolve()));
  socket.end();
  await new Promise<void>((resolve) => {
    socket.on("close", () => resolve());
  });
}

describeAttack(
  "hostile bytes",
  (attack: Attack) => {
    const { broker, brokered } = attack;
    const socket = () => broker().hostSocket;
    const descriptors = () => readdirSync(`/proc/${broker().process.pid}/fd`).length;

    async function expectServing(): Promise<void> {
      const client = await RawClient.connect(socket());
      expect((await client.addText("still", "here")).error).toBeUndefined();
      client.close();
      expect(broker().process.exitCode).toBeNull();
    }

    /** Runs `work` and checks that it left nothing behind. */
    async function expectNothingLeft(work: () => Promise<void>): Promise<void> {
      await expectServing();
      const before = { files: descriptors(), memory: broker().residentBytes() };
      await work();
      await expectServing();
      await until(() => descriptors() <= before.files + 8);
      expect(broker().residentBytes() - before.memory).toBeLessThan(64 * MiB);
    }

    test("G8: random bytes, before and after the greeting, end their own connection and nothing else", async () => {
      const neighbour = await brokered();
      await expectNothingLeft(async () => {
        const numbers = random(20_240_601);
        for (let i = 0; i < 300; i++) {
          const bytes = randomBytes(numbers);
          await say(socket(), i % 3 === 0 ? bytes : Buffer.concat([greeting, bytes]));
        }
      });
      expect(await neighbour.must("QueryAllValidPaths", undefined)).toEqual(expect.any(Array));
    });

    test("G8: requests cut off at each word end their own connection and nothing else", async () => {
      const made = makeDerivation({ name: "cut", script: "echo > $out" });
      const path = made.path;
      await expectNothingLeft(async () => {
        const client = await brokered({ minor: 34 });
        const whole = [
          client.encode("QueryPathInfo", { path }),
          client.encode("QueryMissing", { paths: [path, `${path}!out`] }),
          client.encode("BuildPaths", { paths: [`${path}!out`], mode: 0 }),
          client.minor < 25
            ? client.encode("AddTextToStore", { name: "cut", text: "x".repeat(16), references: [] })
            : Buffer.concat([
                client.encode("AddToStore", {
                  name: "cut",
                  method: "text:sha256",
                  references: [],
                  repair: false,
                }),
                word(16),
                Buffer.alloc(16, "x"),
                word(0),
              ]),
        ];
        for (const request of whole)
          for (let end = 0; end < request.length; end += 8)
            await say(socket(), Buffer.concat([greeting, request.subarray(0, end)]));
      });
    });

    test("G8: giant lengths and counts are refused by name, without allocating memory for them", async () => {
      await expectNothingLeft(async () => {
        for (const length of [2n ** 31n, 2n ** 40n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
          for (const operation of [1, 9, 19, 31, 40]) {
            const client = await brokered();
            await client.write(Buffer.concat([word(operation), word(length), Buffer.alloc(256, 1)]));
            const { error } = await client.outcome();
            expect(error, `${operation} ${length}`).toMatch(/cannot read the request|too l/);
            await client.untilClosed();
          }
          const client = await brokered();
          if (client.minor < 25) continue;
          await client.send("AddToStore", {
            name: "f",
            method: "text:sha256",
            references: [],
            repair: false,
          });
          await client.write(Buffer.concat([word(length), Buffer.alloc(64)]));
          expect((await client.outcome()).error, `frame ${length}`).toBeDefined();
        }
      });
    });

    test("G8: very long greetings do not make the service hold memory", async () => {
      await expectNothingLeft(async () => {
        const clients = await Promise.all(Array.from({ length: 40 }, () => knock(socket())));
        const before = broker().residentBytes();
        for (const client of clients) {
          client.resume();
          client.write(Buffer.concat([word(MAGIC), word(versionToWire(38)), word(1_000_000)]));
          const feature = text("f".repeat(1000));
          for (let i = 0; i < 2000; i++) client.write(feature);
        }
        await sleep(500);
        expect(broker().residentBytes() - before).toBeLessThan(48 * MiB);
        for (const client of clients) client.destroy();
      });
    });

    test("G8: a client that writes one byte at a time is served, and so are others meanwhile", async () => {
      const path = `/nix/store/${"0".repeat(32)}-slow`;
      const slow = await connectAs(socket());
      const fast = await brokered({ minor: 34 });
      const bytes = Buffer.concat([greeting, fast.encode("IsValidPath", { path })]);
      const received: Buffer[] = [];
      slow.on("data", (chunk: Buffer) => received.push(chunk));
      for (const byte of bytes) {
        await new Promise<void>((resolve) => slow.write(Buffer.from([byte]), () => resolve()));
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
      expect(await fast.must("IsValidPath", { path })).toBe(false);
      // Version, log end; then log end and a flag that is not set.
      const end = Buffer.concat([word(0x616c7473), word(0)]);
      await until(() => Buffer.concat(received).subarray(-16).equals(end));
      slow.destroy();
    });

    test("G8: thousands of connections, opened and dropped at every stage, leave nothing behind", async () => {
      await expectNothingLeft(async () => {
        for (let round = 0; round < 40; round++) {
          const sockets = await Promise.all(Array.from({ length: 50 }, () => knock(socket())));
          for (const [i, one] of sockets.entries()) {
            one.write(greeting.subarray(0, (i % 5) * 8));
            if (i % 2 === 0) one.end();
            one.resume();
            setTimeout(() => one.destroy(), i % 7);
          }
          await Promise.all(sockets.map((one) => new Promise((done) => one.on("close", done))));
        }
      });
    });

    test("G8: unknown operations and requests out of order are answered with an error, then closed", async () => {
      for (const number of [0, 2, 15, 17, 51, 999, 1002, 100_000]) {
        const client = await brokered();
        await client.write(Buffer.concat([word(number), Buffer.alloc(64)]));
        expect((await client.outcome()).error).toBe(`operation ${number} is not one that nix-broker knows`);
        await client.untilClosed();
      }
      // Those that came later, in an older version.
      for (const number of [41, 44, 46, 1001]) {
        const client = await brokered({ minor: 21 });
        await client.write(Buffer.concat([word(number), Buffer.alloc(64)]));
        expect((await client.outcome()).error).toBe(`operation ${number} is not one that nix-broker knows`);
        await client.untilClosed();
      }
      const again = await brokered();
      await again.write(greeting);
      expect((await again.outcome()).error).toContain(`operation ${MAGIC}`);
      await again.untilClosed();
      // A request before any greeting is not answered: nothing was agreed on.
      const early = await connectAs(socket());
      early.resume();
      early.write(Buffer.concat([word(1), text("/nix/store/x")]));
      await new Promise((done) => early.on("close", done));
      await expectServing();
    });

    test("G8: a malformed request is answered with an error before the connection is closed", async () => {
      for (const path of [
        "",
        "nowhere",
        "/nix/store",
        "/nix/store/short",
        `/nix/store/${"e".repeat(32)}-x`,
      ]) {
        const client = await brokered();
        await client.write(Buffer.concat([word(1), text(path)]));
        const { error } = await client.outcome();
        expect(error, path).toContain("nix-broker cannot read the request");
        await client.untilClosed();
      }
    });

    test("G8: a build is cancelled upstream when its client disconnects", async () => {
      const client = await brokered();
      const marker = `314159.${broker().process.pid}`;
      // It prints for the reason told in half-close.test.ts.
      const script = `while :; do echo on and on; sleep 0.5; done & sleep ${marker}; echo > $out`;
      const made = makeDerivation({ name: "abandoned", script });
      await addDerivation(client, made);
      await client.send("BuildPaths", { paths: [`${made.path}!out`], mode: 0 });
      await until(() => runs(marker));
      client.close();
      await until(() => !runs(marker));
      await expectServing();
      const rows = await broker().audit("--op", "BuildPaths");
      expect(rows.at(-1)).toMatchObject({ verdict: "forward" });
    });
  },
  { versions: extremes },
);

/** Whether a `sleep` for that long runs on this machine. */
function runs(marker: string): boolean {
  return readdirSync("/proc").some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1") === `sleep\0${marker}\0`;
    } catch {
      return false;
    }
  });
}

describeAttack(
  "too many connections",
  ({ broker, brokered }) => {
    describe("beyond the limit", () => {
      test("G8: connections beyond the limit are refused with that reason, and the others go on", async () => {
        const within = await Promise.all(Array.from({ length: 6 }, () => brokered()));
        await expect(brokered()).rejects.toThrow(/no more than 6 open connections \(limits.connections\)/);
        const crowd = await Promise.all(Array.from({ length: 200 }, () => knock(broker().hostSocket)));
        for (const client of within) expect(await client.must("QueryAllValidPaths", undefined)).toEqual([]);
        for (const one of crowd) one.destroy();
        within[0]?.close();
        let taken: RawClient | undefined;
        while (!taken) taken = await brokered({ features: FEATURES }).catch(() => undefined);
        expect(await taken.must("QueryAllValidPaths", undefined)).toEqual([]);
      });
    });
  },
  { versions: newest, broker: { config: "[limits]\nconnections = 6\n" } },
);
