/**
 * The cost of recording: a day of traffic (a million records by default), queries over it, and its verification.
 *
 * The traffic comes from real builds: `bench/recorded-builds.jsonl` is the export of a broker beside daemons
 * of Nix 2.3, 2.8, 2.26 and 2.34, each of which ran two nested builds (test/audit/nested-build.ts). It is
 * replayed until there are enough records, each time with sandboxes and store paths of its own, 20 replays at
 * a time. Intents are written like the other records, and the cost of syncing them is measured separately: it
 * is the disk's time.
 *
 *     node bench/audit.ts [RECORDS] [--json]
 */

import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { type AuditFilter, AuditReader } from "../src/audit/query.ts";
import type { AuditRecord, StoredRecord } from "../src/audit/record.ts";
import { AuditStore } from "../src/audit/store.ts";
import { verifyAudit } from "../src/audit/verify.ts";
import { encodeBase32 } from "../src/store/base32.ts";

const AT_ONCE = 20;
const START_US = 1_763_800_000_000_000;

interface Recording {
  readonly records: readonly (Omit<StoredRecord, "time" | "hash"> & { readonly time: string })[];
}

/** What was recorded beside each daemon. */
const recordings: readonly Recording[] = readFileSync(
  new URL("recorded-builds.jsonl", import.meta.url),
  "utf8",
)
  .trim()
  .split("\n")
  .map((line) => ({ records: JSON.parse(line) }));

/** The records of a recording, as if the same had been built from other inputs. */
function replayed({ records }: Recording, replay: number): AuditRecord[] {
  const text = JSON.stringify(records)
    .replaceAll(/(?<=\/nix\/store\/)[0-9a-z]{32}(?=-)/g, (hash) => other(hash, replay))
    .replaceAll(/(?<="(?:sandbox|parent)":")[0-9a-z]{32}(?=")/g, (id) => other(id, replay));
  return (JSON.parse(text) as Recording["records"]).map(({ seq: _seq, ...record }) => ({
    ...record,
    time: START_US + replay * 5_000_000 + (Date.parse(record.time) % 1_000_000) * 1000,
    connection: record.connection === undefined ? undefined : record.connection + replay * 100,
  }));
}

function other(text: string, replay: number): string {
  return encodeBase32(createHash("sha256").update(`${replay} ${text}`).digest().subarray(0, 20));
}

/** An endless mix of replays, as of builds that run at the same time. */
function* traffic(): Generator<AuditRecord, never> {
  let next = 0;
  const running: AuditRecord[][] = [];
  for (;;) {
    while (running.length < AT_ONCE) {
      running.push(replayed(recordings[next % recordings.length]!, next).reverse());
      next += 1;
    }
    for (const records of running) {
      const record = records.pop();
      if (record !== undefined) yield record;
    }
    for (let i = running.length - 1; i >= 0; i--) if (running[i]!.length === 0) running.splice(i, 1);
  }
}

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

function folderBytes(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}

function milliseconds(run: () => void): number {
  const start = performance.now();
  run();
  return performance.now() - start;
}

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

const total = Number(process.argv.slice(2).find((argument) => /^\d+$/.test(argument)) ?? 1_000_000);
const folder = mkdtempSync(join(tmpdir(), "bench-audit-"));
const results: Record<string, number> = {};
try {
  const store = new AuditStore(folder);
  const batches: number[] = [];
  const source = traffic();
  let cpu = 0;
  let written = 0;
  while (written < total) {
    // Neither creating the records nor the garbage collection after it is measured.
    const batch = Array.from({ length: Math.min(10_000, total - written) }, () => source.next().value);
    collectGarbage();
    const before = process.cpuUsage();
    for (let from = 0; from < batch.length; from += 100) {
      batches.push(
        milliseconds(() => {
          for (const record of batch.slice(from, from + 100)) store.append(record);
        }),
      );
    }
    const used = process.cpuUsage(before);
    cpu += used.user + used.system;
    written += batch.length;
  }
  store.flush();
  const wall = batches.reduce((sum, time) => sum + time, 0);
  batches.sort((a, b) => a - b);
  results["record, CPU, µs"] = cpu / total;
  results["record, elapsed, µs"] = (wall * 1000) / total;
  results["batch of 100, median, ms"] = percentile(batches, 0.5);
  results["batch of 100, 99 %, ms"] = percentile(batches, 0.99);
  results["batch of 100, longest, ms"] = batches.at(-1) ?? 0;

  const committed: number[] = [];
  for (let i = 0; i < 500; i++) {
    const record = source.next().value;
    committed.push(milliseconds(() => store.appendCommitted({ ...record, kind: "intent" })));
  }
  committed.sort((a, b) => a - b);
  results["committed record, median, ms"] = percentile(committed, 0.5);
  results["committed record, 99 %, ms"] = percentile(committed, 0.99);
  store.close();
  results["a million records, MB"] = folderBytes(folder) / total;

  const reader = new AuditReader(folder);
  const found = reader.query({ kinds: ["request"], op: "AddTempRoot", order: "oldest", limit: 50 }).at(-1);
  const [path = ""] = found?.subjects ?? [];
  const middle = START_US + (total / 60 / 2) * 5_000_000;
  const filters: Record<string, AuditFilter> = {
    sandbox: { sandbox: found?.sandbox },
    "sandbox, none such": { sandbox: "nobody" },
    derivation: { derivation: found?.outer },
    operation: { op: "SetOptions" },
    verdict: { verdict: "deny" },
    "inner builds": { kinds: ["build"] },
    "since the middle": { since: middle },
    "until the first hour": { until: START_US + 3_600_000_000 },
    path: { path },
    "hash part of a path": { path: path.slice(11, 43) },
    "all filters": { sandbox: found?.sandbox, op: "AddTempRoot", verdict: "answer", path, since: 0 },
  };
  for (const [name, filter] of Object.entries(filters)) {
    results[`query: ${name}, ms`] = milliseconds(() => reader.query({ limit: 1000, ...filter }));
  }
  reader.close();
  let whole = false;
  results["verify, s"] =
    milliseconds(() => {
      whole = verifyAudit(folder).ok;
    }) / 1000;
  if (!whole) throw new Error("The audit that was just written does not verify.");
} finally {
  rmSync(folder, { recursive: true });
}

if (process.argv.includes("--json")) {
  console.log(JSON.stringify({ records: total, results }, undefined, 2));
} else {
  console.log(`audit: ${total} records`);
  for (const [name, value] of Object.entries(results))
    console.log(`  ${name.padEnd(34)} ${value.toFixed(2).padStart(9)}`);
}
