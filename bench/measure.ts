/** What a measurement is, and its result. */
import type { Subjects } from "./subjects.ts";

export type Unit = "ms" | "µs" | "MiB/s" | "MiB" | "GB/s" | "ratio";

/** What a figure is compared with: another subject of the same run, or itself. */
export type Against =
  | "direct"
  | "socat"
  | "recursive-nix"
  | "bare node"
  | "bare shell"
  | "bare program"
  | "itself";

/** The target: the figure, divided by the one it is compared with, should be at most or at least this. */
export interface Target {
  readonly bound: "at most" | "at least";
  readonly value: number;
  readonly against: Against;
}

/** One line of the table. Figures are medians over the rounds. */
export interface Row {
  readonly measure: string;
  readonly unit: Unit;
  readonly ours: number;
  readonly others: Readonly<Partial<Record<Exclude<Against, "itself">, number>>>;
  /** None if a figure is only reported. */
  readonly target?: Target;
}

export interface Bench {
  /** How many rounds; each goes through all subjects, starting with another one every time. */
  readonly rounds: number;
  /** Daemon, broker and socat; started when first asked for. */
  subjects(): Promise<Subjects>;
}

/** One thing that is measured, in its own file. */
export interface Measure {
  /** For `--only`. */
  readonly name: string;
  readonly about: string;
  run(bench: Bench): Promise<readonly Row[]>;
}

export interface Judged {
  /** Our figure divided by the one it is compared with. */
  readonly ratio: number | undefined;
  readonly met: boolean | undefined;
}

export const judge = ({ ours, others, target }: Row): Judged => {
  if (target === undefined) {
    const base = others.direct ?? others.socat;
    return { ratio: base === undefined ? undefined : ours / base, met: undefined };
  }
  const base = target.against === "itself" ? 1 : others[target.against];
  if (base === undefined) return { ratio: undefined, met: undefined };
  const ratio = ours / base;
  return { ratio, met: target.bound === "at most" ? ratio <= target.value : ratio >= target.value };
};
