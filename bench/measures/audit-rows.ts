import type { Measure } from "../measure.ts";
import { inRounds } from "../rounds.ts";
import { auditFigures, figure } from "./audit-figures.ts";

const RECORDS = 100_000;

export const auditRows: Measure = {
  name: "audit-rows",
  about: "write one audit record, chained and in batches",
  async run(bench) {
    const { ours } = await inRounds(bench.rounds, ["ours"], async () =>
      figure(auditFigures(RECORDS), "record, elapsed, µs"),
    );
    return [{ measure: "writing an audit record", unit: "µs", ours, others: {} }];
  },
};
