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
  about: "what the hooks add to a build that does not opt in, under bash and dash",
  async run(bench) {
    const folder = mkdtempSync(join(tmpdir(), "bench-hook-"));
    const drv = join(folder, `${"0".repeat(32)}-any.drv`);
    writeFileSync(drv, "Derive(".padEnd(DERIVATION_BYTES, "some text of a derivation, "));
    try {
      const rows: Row[] = [];
      for (const [shell, value] of [
        ["bash", 1.25],
        ["dash", 2.25],
      ] as const) {
        const calls = {
          bare: `${shell} -c :`,
          before: `${shell} ${program.preBuildHook} ${drv}`,
          after: `DRV_PATH=${drv} OUT_PATHS= ${shell} ${program.postBuildHook}`,
        } as const;
        const { bare, before, after } = await inRounds(
          bench.rounds,
          ["bare", "before", "after"],
          async (name) => perCall(calls[name]),
        );
        const others = { "bare shell": bare };
        rows.push(
          {
            measure: `pre-build-hook of a build that does not opt in, ${shell}`,
            unit: "ms",
            ours: before,
            others,
            // dash also starts grep, which takes about as long as dash itself.
            target: { bound: "at most", value, against: "bare shell" },
          },
          { measure: `  post-build-hook, ${shell}`, unit: "ms", ours: after, others },
        );
      }
      return rows;
    } finally {
      rmSync(folder, { recursive: true });
    }
  },
};
