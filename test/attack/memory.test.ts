/** Two sandboxes that take as much of the service's memory as they can, while a third one's client asks and is answered. */
import { afterEach, expect, test } from "vitest";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { Encoder } from "../../src/protocol/wire.ts";
import { addDerivation, type Made, makeDerivation } from "./derivations.ts";
import { describeAttack, newest } from "./suite.ts";

const MiB = 1024 * 1024;
/** What the service may take in all. */
const BOUND = 512 * MiB;
const SOCKETS = ["/tmp/attacker-1", "/tmp/attacker-2"] as const;
const STORE_SOCKET = "/tmp/sees-the-store";
const CONNECTIONS = 64;

function listen(path: string, view: "empty" | "store"): string {
  return `[[listen]]\npath = "${path}"\nprofile = "build"\nview = "${view}"\nallow_uids = ["*"]\n`;
}

function storePath(i: number): string {
  return `/nix/store/${String(i).padStart(32, "0")}-x`;
}

describeAttack(
  "memory",
  ({ brokered, broker, daemon }) => {
    const attackers: RawClient[] = [];
    const attacker = async (socket: string): Promise<RawClient> => {
      const client = await RawClient.connect(daemon().hostPath(socket));
      attackers.push(client);
      return client;
    };
    const connectAll = (each: number): Promise<RawClient[]> =>
      Promise.all(SOCKETS.flatMap((socket) => Array.from({ length: each }, () => attacker(socket))));

    afterEach(async () => {
      for (const client of attackers.splice(0)) client.close();
      await until(async () => (await memory()).held === 0 && (await memory()).waiting === 0);
    });

    async function memory(): Promise<{ held: number; waiting: number }> {
      const { stdout } = await broker().cli("status", "--json");
      return (JSON.parse(stdout) as { memory: { held: number; waiting: number } }).memory;
    }

    /** Keeps asking the service while something is done. @returns the most memory that it took */
    async function watched(work: () => Promise<void>): Promise<number> {
      const victim = await brokered();
      let done = false;
      let peak = 0;
      const asking = (async () => {
        while (!done) {
          expect(await victim.must("IsValidPath", { path: storePath(0) })).toBe(false);
          peak = Math.max(peak, broker().residentBytes());
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      })();
      await work().finally(() => {
        done = true;
      });
      await asking;
      victim.close();
      return peak;
    }

    test("G8: requests that never end hold no more memory than there is for all", async () => {
      const chunk = Buffer.alloc(MiB, "x");
      const peak = await watched(async () => {
        const clients = await connectAll(CONNECTIONS);
        const begin = new Encoder();
        begin.u64(1);
        begin.u64(31 * MiB);
        const head = begin.finish();
        const sent = clients.map(async (client) => {
          await client.write(head);
          for (let i = 0; i < 30; i++) await client.write(chunk);
        });
        await until(async () => (await memory()).waiting >= 2 * CONNECTIONS - 1);
        // One of them is read to its end, or to where its end would be.
        await Promise.any(sent);
        for (const sending of sent) sending.catch(() => undefined);
      });
      expect(peak).toBeLessThan(BOUND);
    });

    test("G8: long requests one after the other, from many clients, take turns", async () => {
      const peak = await watched(async () => {
        const clients = await connectAll(4);
        const [first] = clients;
        const paths = Array.from({ length: 410_000 }, (_, i) => `${storePath(i)}-${"y".repeat(20)}`);
        const request = first!.encode("QueryValidPaths", { paths, substitute: 0 });
        paths.length = 0;
        await Promise.all(
          clients.map(async (client) => {
            for (let i = 0; i < 2; i++) {
              await client.write(request);
              expect(await client.outcome()).toMatchObject({ log: [] });
              expect(await client.reply("QueryValidPaths")).toEqual([]);
            }
          }),
        );
      });
      expect(peak).toBeLessThan(BOUND);
    });

    test("G8: a long question whose reply may be longer still does not wait for itself", async () => {
      const client = await attacker(STORE_SOCKET);
      const paths = Array.from({ length: 20_000 }, (_, i) => storePath(i));
      expect(await client.must("QueryPathInfos", { paths })).toEqual([]);
    });

    test("G8: large derivations that are added and built hold a few fields of each", async () => {
      const peak = await watched(async () => {
        const text = "0123456789abcdef".repeat(64 * 1024 * 8);
        await Promise.all(
          SOCKETS.map(async (socket, at) => {
            const client = await attacker(socket);
            const inputs: Made[] = [];
            for (let i = 0; i < 8; i++) {
              const made = makeDerivation({
                name: `heavy-${at}-${i}`,
                script: "echo > $out",
                env: { text: `${i}${text}` },
                inputs: inputs.slice(-1),
              });
              await addDerivation(client, made);
              inputs.push(made);
            }
            const tops: Made[] = [];
            for (let i = 0; i < 4; i++) {
              const top = makeDerivation({
                name: `top-${at}-${i}`,
                script: "echo > $out",
                inputs: inputs.slice(-1),
              });
              await addDerivation(client, top);
              tops.push(top);
            }
            await Promise.all(
              tops.map(async ({ path }) => {
                // The builders get no such environment: what counts is what is held until they have failed.
                const builder = await attacker(socket);
                expect((await builder.build(`${path}!out`)).error).toContain("failed");
              }),
            );
          }),
        );
      });
      expect(peak).toBeLessThan(BOUND);
    });
  },
  {
    versions: newest,
    broker: {
      config: [...SOCKETS.map((path) => listen(path, "empty")), listen(STORE_SOCKET, "store")].join(""),
    },
  },
);
