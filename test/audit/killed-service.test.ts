/** G7: kill -9 of the whole service in the middle of a load: what clients got an answer for is recorded. */
import { rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { AuditReader } from "../../src/audit/query.ts";
import { verifyAudit } from "../../src/audit/verify.ts";

/** NIX_BROKER_KILLS=100 for as many as the release is tried with; each takes a start of the service. */
const ROUNDS = Number(process.env.NIX_BROKER_KILLS ?? 15);
/** Far more than a start of the service takes on a machine that does other things too. */
const SECONDS_OF_A_ROUND = 30;
const CLIENTS = 4;
const FOLDER = "/var/lib/nix-broker/killed";

let daemon: Daemon;
beforeAll(async () => {
  daemon = await lab.start("2.34", { memory: true });
});
afterAll(() => daemon?.stop());

/** Adds one text after the other, until the service is gone. Notes the paths that it was answered with. */
async function addUntilGone(broker: TestBroker, label: string, answered: string[]): Promise<void> {
  try {
    const client = await RawClient.connect(broker.hostSocket, { minor: 21 });
    for (let i = 0; ; i++) {
      const text = `${label}-${i}`;
      const { path } = await client.must("AddTextToStore", { name: text, text, references: [] });
      answered.push(path);
      await client.must("IsValidPath", { path });
    }
  } catch {
    // Cut off in the middle of a request, or of the greeting.
  }
}

test(
  `G7: the service is killed ${ROUNDS} times under load: everything that was answered is recorded exactly once, and verifies`,
  async () => {
    const answered: string[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      // A killed service leaves its socket, and startBroker waits for one to be there.
      rmSync(daemon.hostPath(`${FOLDER}/s/socket`), { force: true });
      const broker = await startBroker(daemon, { folder: FOLDER });
      const before = answered.length;
      const clients = Array.from({ length: CLIENTS }, (_, client) =>
        addUntilGone(broker, `round-${round}-client-${client}`, answered),
      );
      const over = Promise.all(clients).then(() => true);
      // Somewhere in the middle, another place each time.
      while (answered.length < before + 3 + ((round * 7) % 40))
        if (await Promise.race([over, sleep(1, false)])) throw new Error(`not served:\n${broker.log()}`);
      await broker.stop("SIGKILL");
      await over;
    }
    const folder = daemon.hostPath(`${FOLDER}/state/audit`);
    expect(verifyAudit(folder)).toMatchObject({ ok: true });
    const reader = new AuditReader(folder);
    const intents = reader
      .query({ kinds: ["intent"], completedIntents: true })
      .map(({ subjects }) => subjects?.[0]);
    const completed = reader
      .query({ kinds: ["request"], op: "AddTextToStore", verdict: "forward" })
      .map(({ subjects }) => subjects?.[0]);
    reader.close();
    const names = answered.map((path) => path.slice(44));
    expect(names.length).toBeGreaterThan(ROUNDS * 3);
    expect(names.filter((name) => !intents.includes(name))).toEqual([]);
    expect(new Set(intents).size).toBe(intents.length);
    expect(new Set(completed).size).toBe(completed.length);
  },
  ROUNDS * SECONDS_OF_A_ROUND * 1000,
);
