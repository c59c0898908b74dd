/** Clients that send no more (a proxy that passes an end on), and clients that are gone. */
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { connectAs, PulledLine } from "../../lab/line.ts";
import { childrenOf } from "../../lab/processes.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { addDerivation, type Made, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

describeAttack(
  "half-closed connections",
  ({ broker, daemon, brokered }) => {
    /** The daemon's processes that have a builder below them. */
    const building = (): number[] => childrenOf(daemon().pid).filter((pid) => childrenOf(pid).length > 0);
    const until = async (holds: () => boolean): Promise<void> => {
      while (!holds()) await sleep(20);
    };
    const connect = async (): Promise<[RawClient, Socket]> => {
      const socket = await connectAs(broker().hostSocket);
      return [await RawClient.over(new PulledLine(socket)), socket];
    };
    const add = async (name: string, script: string): Promise<Made> => {
      const made = makeDerivation({ name, script });
      const client = await brokered();
      await addDerivation(client, made);
      client.close();
      return made;
    };

    test("a client that ends its direction after a question gets the answer, and then the end", async () => {
      const made = await add("asked-for", "echo > $out");
      const [client, socket] = await connect();
      const asked = client.send("IsValidPath", { path: made.path });
      socket.end();
      await asked;
      expect((await client.outcome()).error).toBeUndefined();
      expect(await client.reply("IsValidPath")).toBe(true);
      expect(await client.line.fill()).toBe(false);
    });

    test("a client that ends its direction during a build gets the result", async () => {
      const made = await add(
        "half-closed",
        "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done > $out",
      );
      const [client, socket] = await connect();
      await client.send("BuildPaths", { paths: [`${made.path}!out`], mode: 0 });
      socket.end();
      expect((await client.outcome()).error).toBeUndefined();
      expect(await client.reply("BuildPaths")).toBe(1);
      const other = await brokered();
      expect((await other.nar(made.out)).toString("latin1")).toContain("done");
    });

    test.each(["at once", "after it has ended its direction"])(
      "G9: the builds of a client that is gone, %s, are cancelled",
      async (when) => {
        // It prints: a worker of Nix 2.8 that begins to wait for its builder as its client goes may not notice (3 of 150
        // times, bare and under load), until the builder says something.
        const made = await add(`cancelled-${when.length}`, "while :; do echo on and on; sleep 0.5; done");
        const [client, socket] = await connect();
        await client.send("BuildPaths", { paths: [`${made.path}!out`], mode: 0 });
        await until(() => building().length > 0);
        if (when !== "at once") {
          socket.end();
          await sleep(500);
          expect(building().length).toBe(1);
        }
        socket.destroy();
        await until(() => building().length === 0);
      },
    );
  },
  { broker: { config: "[upstream]\npool = 0\n" } },
);
