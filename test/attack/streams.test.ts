/** Bodies of 1 GiB: passed on, refused in the middle, broken off by upstream; made as they are sent. */
import { execFileSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import type { RawClient } from "../../lab/raw-client.ts";
import { narStrings, u64, writeNar } from "../store/nar.ts";
import { type Attack, describeAttack, extremes } from "./suite.ts";

const MiB = 1024 * 1024;
const SIZE = 1024 * MiB;
const piece = Buffer.alloc(64 * 1024);
for (let i = 0; i < piece.length; i++) piece[i] = (i * 7919) >> 5;
const MAY_GROW = 32 * MiB;

/** The contents, one and the same buffer over and over; `seen` is called now and then. */
function* contents(seen?: () => void): Generator<Buffer> {
  for (let sent = 0; sent < SIZE; sent += piece.length) {
    if (sent % (64 * MiB) === 0) seen?.();
    yield piece;
  }
}

/** The same as a NAR of a file. */
function* nar(seen?: () => void): Generator<Buffer> {
  yield narStrings("nix-archive-1", "(", "type", "regular", "contents");
  yield u64(SIZE);
  yield* contents(seen);
  yield narStrings(")");
}

/** 1 GiB by AddToStore in the form of this version. */
function addGiB(client: RawClient, name: string, seen?: () => void) {
  return client.minor >= 25
    ? client.ask("AddToStore", { name, method: "fixed:r:sha256", references: [], repair: false }, nar(seen))
    : client.ask("AddToStore", { name, fixed: false, recursive: true, hashAlgorithm: "sha256" }, nar(seen));
}

async function expectInStep(client: RawClient): Promise<void> {
  expect(await client.must("QueryAllValidPaths", undefined)).toEqual(expect.any(Array));
  expect((await client.addText("next", `${Math.random()}`)).error).toBeUndefined();
}

/** How much more memory the service has at most, while `work` calls back, than before. */
async function growth({ broker }: Attack, work: (seen: () => void) => Promise<unknown>): Promise<number> {
  const before = broker().residentBytes();
  let most = 0;
  await work(() => {
    most = Math.max(most, broker().residentBytes() - before);
  });
  return most;
}

describeAttack(
  "1 GiB",
  (attack) => {
    const { brokered, bare } = attack;

    test("G8: 1 GiB through AddToStore and NarFromPath makes the service grow by less than 32 MiB", async () => {
      const client = await brokered();
      client.line.keepNothing();
      await expectInStep(client);
      let path = "";
      const adding = await growth(attack, async (seen) => {
        const answer = await addGiB(client, "large", seen);
        expect(answer.error).toBeUndefined();
        path = answer.reply?.path ?? "";
        seen();
      });
      expect(adding).toBeLessThan(MAY_GROW);
      const reading = await growth(attack, async (seen) => {
        await client.must("NarFromPath", { path });
        let slices = 0;
        expect(await client.skipNar(() => slices++ % 4096 === 0 && seen())).toBeGreaterThan(SIZE);
        seen();
      });
      expect(reading).toBeLessThan(MAY_GROW);
      await expectInStep(client);
    });

    describe("with bounds", () => {
      test("G8: a request denied in the middle of a body of 1 GiB leaves the connection in step", async () => {
        const client = await brokered();
        client.line.keepNothing();
        const denied = await growth(attack, async (seen) => {
          const { error } =
            client.minor >= 25
              ? await client.ask(
                  "AddToStore",
                  { name: "text", method: "text:sha256", references: [], repair: false },
                  contents(seen),
                )
              : await client.ask(
                  "AddToStore",
                  { name: "x.drv", fixed: false, recursive: true, hashAlgorithm: "sha256" },
                  nar(seen),
                );
          expect(error).toMatch(/limits.text_bytes|only as a text/);
        });
        expect(denied).toBeLessThan(MAY_GROW);
        await expectInStep(client);
      });

      test("G8: a request that upstream rejects in the middle of 1 GiB leaves the connection in step", async () => {
        const { daemon } = attack;
        // In the daemon's own namespace: that of 2.34 is not the one of its surroundings.
        const beside = (...argv: string[]) =>
          execFileSync("nsenter", [`--target=${daemon().pid}`, "--mount", "--root", "/bin/busybox", ...argv]);
        beside(..."mount -t tmpfs -o size=40m,mode=1775 tmpfs /nix/store".split(" "));
        try {
          const client = await brokered();
          client.line.keepNothing();
          const rejected = await growth(attack, async (seen) => {
            const { error } = await addGiB(client, "too-large", seen);
            expect(error).toContain("the nix-daemon refused AddToStore");
          });
          expect(rejected).toBeLessThan(MAY_GROW);
          await expectInStep(client);
          const rows = await attack.broker().audit("--op", "AddToStore");
          expect(rows.map((row) => row.upstreamError ?? "").join()).toMatch(/No space left/);
        } finally {
          beside("umount", "-l", "/nix/store");
        }
      });

      test("G8: frames whose contents look like operations are never treated as operations, however many", async () => {
        const client = await brokered();
        if (client.minor < 25) {
          const list = writeNar({ type: "regular", contents: u64(23) });
          const request = { name: "n", fixed: true, recursive: true, hashAlgorithm: "md5" };
          expect((await client.ask("AddToStore", request, [list])).error).toContain("not allowed");
          return expectInStep(client);
        }
        const operation = Buffer.alloc(23);
        const many = Array.from({ length: 20_000 }, () => operation);
        const request = { method: "fixed:sha256", references: [], repair: false };
        for (const name of ["not a name!", "fine"]) {
          const { error } = await client.ask("AddToStore", { ...request, name }, many);
          expect(error === undefined).toBe(name === "fine");
          await expectInStep(client);
        }
        const other = await bare();
        expect(await other.must("QueryAllValidPaths", undefined)).toEqual(expect.any(Array));
      });
    });
  },
  {
    daemon: { memory: true },
    // No connections in store: a worker of the daemon may keep the mounts that it began with.
    broker: { config: "[upstream]\npool = 0\n" },
    versions: extremes,
  },
);
