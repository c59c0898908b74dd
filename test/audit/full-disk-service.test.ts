/** G7: the disk of the audit is full: the service refuses what it cannot record, says why, and goes on when there is room. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { mustRun } from "../../lab/command.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { RawClient } from "../../lab/raw-client.ts";

const FOLDER = "/var/lib/nix-broker/full";
const AUDIT = `${FOLDER}/state/audit`;

const disk = mkdtempSync(join(tmpdir(), "nix-broker-disk-"));
let daemon: Daemon;
let broker: TestBroker;
beforeAll(async () => {
  await mustRun(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk]);
  daemon = await lab.start("2.34", { binds: [{ source: disk, target: AUDIT }] });
  broker = await startBroker(daemon, { folder: FOLDER });
});
afterAll(async () => {
  await broker?.stop();
  await daemon?.stop();
  await mustRun(["umount", disk]);
  rmSync(disk, { recursive: true });
});

let count = 0;
async function add(client: RawClient): Promise<string | undefined> {
  const text = `text-${++count}`;
  return (await client.ask("AddTextToStore", { name: text, text, references: [] })).error;
}

test("G7: clients, old and new, are told that the disk is full, and are served again once there is room", async () => {
  const client = await RawClient.connect(broker.hostSocket, { minor: 21 });
  expect(await add(client)).toBeUndefined();
  const ballast = join(disk, "ballast");
  expect(() => writeFileSync(ballast, Buffer.alloc(4 * 1024 * 1024))).toThrow(/ENOSPC/);

  // What is left of the last page may take a few more.
  let error: string | undefined;
  for (let i = 0; i < 200 && error === undefined; i++) error = await add(client);
  expect(error).toMatch(/cannot write its audit/);
  const another = await RawClient.connect(broker.hostSocket, { minor: 21 }).then(
    add,
    (refused: Error) => refused.message,
  );
  expect(another).toMatch(/audit/);

  rmSync(ballast);
  // It tries again by itself.
  for (error = "not yet"; error !== undefined; error = await add(client))
    await new Promise((resolve) => setTimeout(resolve, 100));
  client.close();
  expect(broker.log()).toContain("the audit is written again");
  const verified = await broker.cli("audit", "verify");
  expect(verified.code).toBe(0);
  const rows = await broker.audit("--kind", "service");
  expect(rows.map(({ op }) => op)).toContain("unwritable");
});
