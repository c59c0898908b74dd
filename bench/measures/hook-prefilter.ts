import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { program } from "../../lab/program.ts";
import type { Measure, Row } from "../measure.ts";
import { inRounds } from "../rounds.ts";

const CALLS = 100;
/** As long as a derivation of Nixpkgs usually is. */
const DERIVATION_BYTES = 4000;

const shells = ["bash", "dash"] as const;
type Shell = (typeof shells)[number];

/** Milliseconds per call, started by a shell as Nix starts it: fork, exec, wait. */
function perCall(command: string): number {
  const loop = `i=0; while [ $i -lt ${CALLS} ]; do ${command} </dev/null >/dev/null; i=$((i+1)); done`;
  const started = performance.now();
  const { status, stderr } = spawnSync("/bin/sh", ["-c", loop], { encoding: "utf8" });
  if (status !== 0) throw new Error(`the hook failed: ${stderr}`);
  return (performance.now() - started) / CALLS;
}

export const hookPrefilter: Measure = {
  name: "hook-prefilter",
  about: "what the hooks add to a build that does not opt in: compiled, and as scripts under bash and dash",
  async run(bench) {
    const folder = mkdtempSync(join(tmpdir(), "bench-hook-"));
    const drv = join(folder, `${"0".repeat(32)}-any.drv`);
    writeFileSync(drv, "Derive(".padEnd(DERIVATION_BYTES, "some text of a derivation, "));
    const after = `DRV_PATH=${drv} OUT_PATHS=`;
    const calls = {
      "bare program": "/bin/true",
      before: `${program.preBuildHook} ${drv}`,
      after: `${after} ${program.postBuildHook}`,
      ...Object.fromEntries(
        shells.flatMap((shell) => [
          [`bare ${shell}`, `${shell} -c :`],
          [`before ${shell}`, `${shell} ${program.preBuildHook}.sh ${drv}`],
          [`after ${shell}`, `${after} ${shell} ${program.postBuildHook}.sh`],
        ]),
      ),
    } as Record<"bare program" | "before" | "after" | `${"bare" | "before" | "after"} ${Shell}`, string>;
    try {
      const names = Object.keys(calls) as (keyof typeof calls)[];
      const took = await inRounds(bench.rounds, names, async (name) => perCall(calls[name]));
      const bare = { "bare program": took["bare program"] };
      return [
        {
          measure: "both hooks of a build that does not opt in",
          unit: "ms",
          ours: took.before + took.after,
          others: bare,
          target: { bound: "at most", value: 3, against: "itself" },
        },
        { measure: "  pre-build-hook", unit: "ms", ours: took.before, others: bare },
        { measure: "  post-build-hook", unit: "ms", ours: took.after, others: bare },
        ...shells.flatMap((shell): Row[] => {
          const others = { "bare shell": took[`bare ${shell}`] };
          return [
            { measure: `  pre-build-hook.sh, ${shell}`, unit: "ms", ours: took[`before ${shell}`], others },
            { measure: `  post-build-hook.sh, ${shell}`, unit: "ms", ours: took[`after ${shell}`], others },
          ];
        }),
      ];
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
};
