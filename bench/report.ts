/** The table that people read, and the JSON that is kept. */
import { type Against, judge, type Row, type Unit } from "./measure.ts";

const digits: Readonly<Record<Unit, number>> = {
  ms: 2,
  µs: 1,
  "MiB/s": 0,
  MiB: 1,
  "GB/s": 2,
  ratio: 2,
};

const figure = (value: number | undefined, unit: Unit): string =>
  value === undefined ? "" : value.toFixed(digits[unit]);

const columns = ["measure", "ours", "direct", "socat", "other", "ratio", "target", ""] as const;
const widths = [56, 9, 9, 9, 9, 6, 28, 6];

const line = (cells: readonly string[]): string =>
  cells
    .map((cell, i) => (i === 0 || i >= 6 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
    .join(" ")
    .trimEnd();

export const tableHeader = (): string => line(columns);

export const tableLine = (row: Row): string => {
  const { ratio, met } = judge(row);
  const { others, unit, target } = row;
  const other =
    others["recursive-nix"] ?? others["bare node"] ?? others["bare shell"] ?? others["bare program"];
  const of: Partial<Record<Against, string>> = { itself: ` ${unit === "ratio" ? "" : unit}`.trimEnd() };
  return line([
    `${row.measure} (${unit})`,
    figure(row.ours, unit),
    figure(others.direct, unit),
    figure(others.socat, unit),
    figure(other, unit),
    target?.against === "itself" || ratio === undefined ? "" : ratio.toFixed(2),
    target === undefined
      ? ""
      : `${target.bound} ${target.value}${of[target.against] ?? ` × ${target.against}`}`,
    met === undefined ? "" : met ? "ok" : "missed",
  ]);
};

export interface Surroundings {
  readonly nix: string;
  readonly node: string;
  readonly cores: number;
  readonly rounds: number;
  readonly started: string;
}

/** Stable: `rows` have `measure`, `unit`, `ours`, `others`, `target`, `ratio`, `met`. */
export const toJson = (surroundings: Surroundings, rows: readonly Row[]): string =>
  `${JSON.stringify({ ...surroundings, rows: rows.map((row) => ({ ...row, ...judge(row) })) }, undefined, 2)}\n`;
