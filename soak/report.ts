/** The table that people read. */
import type { SoakResult } from "./soak.ts";
import type { Counts } from "./tally.ts";

export function report({ tally, use }: SoakResult): string {
  const mebibytes = (bytes: number): string => `${Math.round(bytes / 1024 ** 2)} MiB`;
  const uses = Object.entries(use).flatMap(([part, { peakBytes, peakDescriptors }]) => [
    line(`memory of the ${part}, at most`, mebibytes(peakBytes)),
    line(`descriptors of the ${part}, at most`, String(peakDescriptors)),
  ]);
  return [
    ...section("Builds", tally.builds),
    ...section("Disturbances", tally.disturbances),
    ...section("Checks passed", tally.checks),
    "Use",
    ...uses,
    "",
    tally.faults.length === 0 ? "Nothing was wrong, nothing hung, nothing is left." : "Faults:",
    ...tally.faults.map((fault) => `- ${fault}`),
  ].join("\n");
}

function section(title: string, counts: Counts): string[] {
  const lines = [...counts].toSorted(([a], [b]) => a.localeCompare(b));
  return [title, ...lines.map(([kind, count]) => line(kind, String(count))), ""];
}

function line(label: string, value: string): string {
  return `  ${label.padEnd(72)} ${value.padStart(9)}`;
}
