import { execFileSync } from "node:child_process";
import { join } from "node:path";
import type { Measure } from "../measure.ts";
import { inRounds } from "../rounds.ts";

const RECORDS = 100_000;
const FIGURE = "record, elapsed, µs";

/** In a process of its own, as the store's cost is one of a warm process that does nothing else. */
const microseconds = (): number => {
  const script = join(import.meta.dirname, "../audit.ts");
  const output = execFileSync(process.execPath, [script, String(RECORDS), "--json"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const { results } = JSON.parse(output) as { results: Record<string, number> };
  const value = results[FIGURE];
  if (value === undefined) throw new Error(`bench/audit.ts has no figure "${FIGURE}"`);
  return value;
};

export const auditRows: Measure = {
  name: "audit-rows",
  about: "write one audit record, chained and in batches",
  async run(bench) {
    const { ours } = await inRounds(bench.rounds, ["ours"], async () => microseconds());
    return [{ measure: "writing an audit record", unit: "µs", ours, others: {} }];
  },
};
