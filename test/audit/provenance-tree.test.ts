/** Provenance of records that clients chose: what they repeat, or ask for in a circle, must not grow without end. */
import { expect, test } from "vitest";
import { buildRecord, sandboxRecord } from "../../src/audit/events.ts";
import { provenance, walk } from "../../src/audit/provenance.ts";
import { AuditReader } from "../../src/audit/query.ts";
import { AuditStore } from "../../src/audit/store.ts";
import { auditFolder, storePath } from "./folder.ts";

const folder = auditFolder();
const START = 1_763_800_000_000_000;
const SECOND = 1_000_000;

function derivation(level: number): string {
  return `${storePath(level)}.drv`;
}

test("builds that are asked for many times, also by themselves, are each in the tree once", () => {
  const store = new AuditStore(folder.path);
  const levels = 5;
  for (let level = 0; level < levels; level++) {
    const sandbox = `sandbox-${level}`;
    store.append(
      sandboxRecord("begin", {
        time: START,
        sandbox,
        outer: derivation(level),
        detail: level === 0 ? {} : { parent: `sandbox-${level - 1}` },
      }),
    );
    for (const asked of [level + 1, level])
      for (let times = 0; times < 50; times++)
        store.append(
          buildRecord(
            { sandbox },
            { time: START, durationUs: SECOND, derivation: derivation(asked), outputs: new Map() },
          ),
        );
  }
  store.close();
  const reader = new AuditReader(folder.path);
  const root = provenance(reader, derivation(0));
  reader.close();
  const builds = root === undefined ? [] : [...walk(root)].map(([build]) => build);
  expect(builds).toHaveLength(1 + levels * 100);
  const sandboxes = builds.flatMap(({ sandbox }) => (sandbox === undefined ? [] : [sandbox.id])).sort();
  expect(sandboxes).toEqual(Array.from({ length: levels }, (_, level) => `sandbox-${level}`));
});
