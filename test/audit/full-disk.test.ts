import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { expect, test } from "vitest";
import { auditFolder } from "./folder.ts";

const folder = auditFolder();
const source = join(import.meta.dirname, "../../src/audit");

/** Runs in a mount namespace of its own, on a file system of 2 MiB, and tells what happens. */
const SCRIPT = `
import { rmSync, writeFileSync, readdirSync } from "node:fs";
import { AuditStore } from ${JSON.stringify(join(source, "store.ts"))};
import { AuditReader } from ${JSON.stringify(join(source, "query.ts"))};
import { verifyAudit } from ${JSON.stringify(join(source, "verify.ts"))};
const base = process.argv[1];
const say = (name, value) => console.log(JSON.stringify([name, value]));
const health = [];
const store = new AuditStore(base + "/audit", { retryMs: 20, maxPending: 500, onHealth: (failure) => health.push(failure?.message ?? "well") });
const request = (i) => ({ kind: "request", op: "IsValidPath", time: i, connection: i, subjects: ["/nix/store/" + i + "x".repeat(50)] });
let count = 0;
let durable = 0;
store.append(request(count++));
store.flush();
writeFileSync(base + "/filler", "");
let size = 0;
try { for (;;) { writeFileSync(base + "/filler", Buffer.alloc(4096), { flag: "a" }); size += 4096; } } catch (error) { say("filled", error.code); }
// The service goes on asking.
let refused;
while (refused === undefined && count < 100000) {
  store.append(request(count++));
  try { store.appendCommitted({ ...request(count), kind: "intent" }); durable++; count++; } catch (error) { refused = error; }
}
say("refused", [refused.name, refused.code, refused.message]);
const before = process.memoryUsage().heapUsed;
for (let i = 0; i < 2000; i++) store.append(request(count++));
say("kept", [store.healthy, store.pending <= 501, store.lost > 1000]);
rmSync(base + "/filler");
while (!store.healthy) await new Promise((resolve) => setTimeout(resolve, 5));
store.appendCommitted({ ...request(count++), kind: "intent" });
durable++;
say("health", health);
const lost = store.lost;
store.close();
const reader = new AuditReader(base + "/audit");
const records = reader.query({ completedIntents: true, order: "oldest" });
say("verified", verifyAudit(base + "/audit").ok);
say("accounted", records.filter((record) => record.kind !== "service").length + lost === count);
say("intents", records.filter((record) => record.kind === "intent").length === durable);
say("events", records.filter((record) => record.kind === "service").map((record) => [record.op, record.detail.records === lost]));
`;

test("G7: on a full disk changes are refused and nothing grows; everything works again once there is room", async () => {
  const mount = `mkdir -p "$1" && mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" --input-type=module -e "$3" "$1"`;
  const child = spawn("unshare", ["-m", "sh", "-c", mount, "sh", folder.path, process.execPath, SCRIPT], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const said = new Map<string, unknown>();
  for await (const line of createInterface(child.stdout)) {
    const [name, value] = JSON.parse(line) as [string, unknown];
    said.set(name, value);
  }
  expect(said.get("filled")).toBe("ENOSPC");
  expect(said.get("refused")).toEqual([
    "AuditError",
    expect.stringMatching(/write|unhealthy/),
    expect.stringMatching(/disk/),
  ]);
  expect(said.get("kept")).toEqual([false, true, true]);
  expect(said.get("health")).toEqual([expect.stringContaining("Requests are refused"), "well"]);
  expect(said.get("verified")).toBe(true);
  expect(said.get("accounted")).toBe(true);
  expect(said.get("intents")).toBe(true);
  expect(said.get("events")).toEqual([
    ["unwritable", false],
    ["lost", true],
  ]);
  expect(existsSync(join(folder.path, "audit"))).toBe(false);
});
