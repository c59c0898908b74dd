import type { Measure } from "../measure.ts";
import { auditFigures, figure } from "./audit-figures.ts";

const RECORDS = 1_000_000;
const MB = 1_000_000;
const MIB = 1024 * 1024;

/** Once, not in rounds: it takes a minute, and its figures are sums over a million records. */
export const auditDay: Measure = {
  name: "audit-day",
  about: "a day of recorded builds, a million records: size on disk, every query, verification",
  async run() {
    const figures = auditFigures(RECORDS);
    const queries = [...figures].filter(([name]) => name.startsWith("query: "));
    return [
      {
        measure: "a million records: one record, CPU",
        unit: "µs",
        ours: figure(figures, "record, CPU, µs"),
        others: {},
      },
      {
        measure: "a million records: on disk",
        unit: "MiB",
        ours: (figure(figures, "a million records, MB") * MB) / MIB,
        others: {},
      },
      ...queries.map(([name, ours]) => ({
        measure: `a million records: ${name.replace(/, ms$/, "")}`,
        unit: "ms" as const,
        ours,
        others: {},
      })),
      {
        measure: "a million records: audit verify",
        unit: "ms",
        ours: figure(figures, "verify, s") * 1000,
        others: {},
      },
    ];
  },
};
