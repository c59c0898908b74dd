import type { LimitRow } from "../policy/limits.ts";
import { formatDuration, formatSize } from "./units.ts";

/** A limit's value as one would write it in the file. */
export function limitText(row: LimitRow, value: number = row.default): string {
  if (value === Number.POSITIVE_INFINITY) return '"unlimited"';
  if (row.unit === "bytes") return `"${formatSize(value)}"`;
  return row.unit === "seconds" ? `"${formatDuration(value)}"` : String(value);
}
