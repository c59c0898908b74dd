/** What `bench/audit.ts` prints, by its names. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";

export type AuditFigures = ReadonlyMap<string, number>;

/** In a separate process, because the store's cost is measured in a warm process that does nothing else. */
export function auditFigures(records: number): AuditFigures {
  const script = join(import.meta.dirname, "../audit.ts");
  const output = execFileSync(process.execPath, [script, String(records), "--json"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  });
  const { results } = JSON.parse(output) as { results: Record<string, number> };
  return new Map(Object.entries(results));
}

/** @throws Error when there is no figure of that name */
export function figure(figures: AuditFigures, name: string): number {
  const value = figures.get(name);
  if (value === undefined) throw new Error(`bench/audit.ts has no figure "${name}"`);
  return value;
}
