/** A sandbox that opens more connections than it may have: what is beyond the bound costs nothing. */
import type { Socket } from "node:net";
import { expect, test } from "vitest";
import { connectAs } from "../../lab/line.ts";
import type { RawClient } from "../../lab/raw-client.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { describeAttack, newest } from "./suite.ts";

const MAY_HAVE = 4;
/** As many clients as are told at once why they are turned away (src/sandbox/quota.ts), and some. */
const MORE = 16 + 5;

describeAttack(
  "many connections",
  ({ brokered, broker }) => {
    async function untilAdmitted(): Promise<RawClient> {
      for (;;) {
        try {
          return await brokered();
        } catch (error) {
          // Until the broker has noticed that others left. While it tells as many as it tells at once, it only hangs up.
          expect((error as Error).message).toMatch(/limits\.connections|the peer closed the connection/);
        }
      }
    }

    test("G8: connections that are turned away do not pile up, and those that linger count", async () => {
      const open = new Set<Socket>();
      for (let i = 0; i < MAY_HAVE + MORE; i++) {
        const socket = await connectAs(broker().hostSocket);
        open.add(socket.resume());
        socket.on("close", () => open.delete(socket));
        // None says a word: each would have a minute for its greeting.
      }
      while (open.size > MAY_HAVE + 16) await new Promise((resolve) => setImmediate(resolve));
      for (const socket of open) socket.destroy();
      await untilAdmitted();
    });

    test("G8: a build request that names an output many times is one build in the audit", async () => {
      const client = await untilAdmitted();
      const made = makeDerivation({ name: "often", script: "echo often > $out" });
      await addDerivation(client, made);
      const paths = Array.from({ length: 500 }, () => `${made.path}!out`);
      expect(await client.must("BuildPaths", { paths, mode: 0 })).toBe(1);
      const rows = await broker().audit();
      expect(rows.filter((row) => row.kind === "build")).toHaveLength(1);
    });
  },
  {
    versions: newest,
    broker: { config: `[limits]\nconnections = ${MAY_HAVE}\n` },
  },
);
