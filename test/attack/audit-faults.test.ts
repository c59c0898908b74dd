/** The audit cannot be written: nothing goes unrecorded, and all works again when it can. */
import { expect, test } from "vitest";
import { startBroker } from "../../lab/broker.ts";
import { lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";

const FOLDER = "/run/audit";

test.each(lab.versions)(
  "G7: with a full disk under the audit nothing reaches upstream [daemon %s]",
  async (version) => {
    const daemon = await lab.start(version);
    const beside = async (script: string): Promise<void> => {
      expect(await daemon.run(["sh", "-c", script])).toMatchObject({ code: 0 });
    };
    try {
      await beside(
        `mkdir ${FOLDER} && /bin/busybox mount -t tmpfs -o size=4m tmpfs ${FOLDER} && chown nix-broker ${FOLDER} && chmod 700 ${FOLDER}`,
      );
      const broker = await startBroker(daemon, { config: `[audit]\npath = "${FOLDER}"\n` });
      const client = await RawClient.connect(broker.hostSocket);
      const bare = await RawClient.connect(daemon.socket);
      const made = makeDerivation({ name: "unrecorded", script: "echo > $out" });
      await addDerivation(client, made);

      await beside(`cat /dev/zero > ${FOLDER}/filler 2>/dev/null; :`);
      const before = await bare.must("QueryAllValidPaths", undefined);
      const refused = /nix-broker cannot write its audit log/;
      let answer = await client.addText("unrecorded", "0");
      // What room SQLite still had in its files may take a few records.
      for (let i = 1; answer.error === undefined; i++) answer = await client.addText("recorded", `${i}`);
      expect(answer.error).toMatch(refused);
      const held = await bare.must("QueryAllValidPaths", undefined);
      expect(held.filter((path) => !before.includes(path) && !path.endsWith("recorded"))).toEqual([]);
      expect((await client.build(`${made.path}!out`)).error).toMatch(refused);
      expect((await client.ask("QueryAllValidPaths", undefined)).error).toMatch(refused);
      const other = await RawClient.connect(broker.hostSocket);
      expect((await other.addText("other", "other")).error).toMatch(refused);
      expect(await bare.must("QueryAllValidPaths", undefined)).toEqual(held);
      expect(broker.log()).toContain("the audit cannot be written");

      await beside(`rm ${FOLDER}/filler`);
      await until(() => broker.log().includes("the audit is written again"));
      expect((await client.addText("recorded", "afterwards")).error).toBeUndefined();
      expect((await other.build(`${made.path}!out`)).error).toBeUndefined();
      const rows = await broker.audit();
      expect(rows.some((row) => row.op === "unwritable")).toBe(true);
      const texts = rows.filter((row) => row.subjects?.some((subject) => subject.endsWith("recorded")));
      expect(texts.some((row) => row.verdict === "forward")).toBe(true);
      for (const one of [client, other, bare]) one.close();
      await broker.stop();
    } finally {
      await daemon.stop();
    }
  },
);
