import { spawnSync } from "node:child_process";
import { program } from "../../lab/program.ts";
import type { Measure } from "../measure.ts";
import { inRounds, median } from "../rounds.ts";

const SAMPLES = 5;

function milliseconds(argv: readonly [string, ...string[]]): number {
  const [command, ...args] = argv;
  const started = performance.now();
  const { status, stderr } = spawnSync(command, args, {
    encoding: "utf8",
    env: { PATH: process.env.PATH, NIX_BROKER_NODE: process.execPath },
  });
  if (status !== 0) throw new Error(`${argv.join(" ")} ended with ${status}: ${stderr}`);
  return performance.now() - started;
}

export const commandStart: Measure = {
  name: "command-start",
  about: "start a command to its end, against a Node that does nothing",
  async run(bench) {
    const commands = {
      ours: [program.wrapper, "--version"],
      policy: [program.wrapper, "policy"],
      bare: [process.execPath, "-e", "0"],
    } as const;
    const { ours, policy, bare } = await inRounds(
      bench.rounds,
      Object.keys(commands) as (keyof typeof commands)[],
      async (name) => median(Array.from({ length: SAMPLES }, () => milliseconds(commands[name]))),
    );
    const others = { "bare node": bare };
    return [
      {
        measure: "start of nix-broker --version",
        unit: "ms",
        ours,
        others,
        target: { bound: "at most", value: 1.3, against: "bare node" },
      },
      { measure: "start of nix-broker policy", unit: "ms", ours: policy, others },
    ];
  },
};
