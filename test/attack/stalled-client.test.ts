/** A client that asks for a build and then reads nothing. */
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { addDerivation, type Made, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

const OTHER_SOCKET = "/tmp/other-sandbox";
/** More than the kernel and the daemon hold for a client that does not read. */
const chatter =
  "i=0; while [ $i -lt 30000 ]; do echo a line of the log that nobody reads $i; i=$((i+1)); done";
const LAST_LINE = "nobody reads 29999";

/** Far longer than the build takes when its log is read. */
const HELD_MS = 3000;

describeAttack(
  "a client that stops reading",
  ({ bare, brokered, broker, daemon }) => {
    const made = (name: string) => makeDerivation({ name, script: `${chatter}; echo > $out` });
    /** The log is the first asker's: whoever comes while it builds waits for the lock of the output, and reads none. */
    const untilItBuilds = ({ out }: Made): Promise<boolean> =>
      until(() => ["", ".lock"].some((end) => existsSync(daemon().hostPath(out + end))));

    test("the bare daemon lets it hold up everybody who waits for the same derivation", async () => {
      const [stalled, waiting] = [await bare(), await bare()];
      const derivation = made("bare");
      for (const client of [stalled, waiting]) await addDerivation(client, derivation);
      await stalled.send("BuildPaths", { paths: [`${derivation.path}!out`], mode: 0 });
      await untilItBuilds(derivation);
      const done = waiting.build(`${derivation.path}!out`);
      const held = await Promise.race([done.then(() => false), sleep(HELD_MS, true)]);
      expect(held).toBe(true);
      expect((await stalled.outcome()).error).toBeUndefined();
      expect((await done).error).toBeUndefined();
    });

    test("G8: a client that stops reading holds up nobody, in its own sandbox or another", async () => {
      const stalled = await brokered();
      const same = await brokered();
      const other = await RawClient.connect(daemon().hostPath(OTHER_SOCKET));
      const derivation = made("brokered");
      for (const client of [stalled, same, other]) await addDerivation(client, derivation);
      // Said in another way, or the audit would sum it up with the other's.
      await stalled.send("BuildPaths", { paths: [`${derivation.path}!*`], mode: 0 });
      await untilItBuilds(derivation);
      const answers = await Promise.all([
        same.build(`${derivation.path}!out`),
        other.build(`${derivation.path}!out`),
      ]);
      expect(answers.map(({ error }) => error)).toEqual([undefined, undefined]);
      // What it missed is counted, and its connection is in step.
      const { error, log } = await stalled.outcome();
      expect(error).toBeUndefined();
      expect(await stalled.reply("BuildPaths")).toBe(1);
      expect(log.some(({ text }) => text.includes(LAST_LINE))).toBe(false);
      expect(await stalled.must("IsValidPath", { path: derivation.out })).toBe(true);
      const rows = await broker().audit("--op", "BuildPaths");
      expect(rows.some((row) => Number(row.detail?.logLinesDropped) > 0)).toBe(true);
      other.close();
    });
  },
  {
    broker: {
      config: `[[listen]]\npath = "${OTHER_SOCKET}"\nprofile = "build"\nview = "empty"\nallow_uids = ["*"]\n`,
    },
  },
);
