import { copyFileSync } from "node:fs";
import { packageGraph } from "../../lab/package-graph.ts";
import type { Measure } from "../measure.ts";
import { inRounds, timed } from "../rounds.ts";
import { BenchBroker } from "../subjects.ts";

const PACKAGES = 200;
const GRAPH = "/tmp/package-graph.nix";

/** A static socket with the view `store`, as jails get that see the whole store anyway. */
export const viewStore: Measure = {
  name: "view-store",
  about: `view \`store\`: nix-instantiate of ${PACKAGES} packages, and a dry run over all that they need`,
  async run(bench) {
    const { daemon } = await bench.subjects();
    copyFileSync(packageGraph, daemon.hostPath(GRAPH));
    const broker = await BenchBroker.start(daemon, { name: "bench-store", sockets: 1, view: "store" });
    const remotes = { ours: `unix://${broker.socketInside}`, direct: "daemon" } as const;
    const run = async (name: keyof typeof remotes, command: readonly string[]): Promise<string> => {
      const { code, stdout, stderr } = await daemon.run(command, {
        env: { NIX_REMOTE: remotes[name] },
        timeoutMs: 1_200_000,
      });
      if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${stderr}`);
      return stdout;
    };
    try {
      let salt = 0;
      const graph = (attribute: string): string[] => [
        "nix-instantiate",
        GRAPH,
        ...["-A", attribute, "--arg", "packages", `${PACKAGES}`],
        ...["--argstr", "salt", `${process.pid}-${salt}`],
      ];
      const names = ["ours", "direct"] as const;
      const evaluated = await inRounds(bench.rounds, names, (name) => {
        salt++;
        return timed(() => run(name, graph("all")));
      });
      const last = (await run("direct", graph("last"))).trim();
      const dry = await inRounds(bench.rounds, names, (name) =>
        timed(() => run(name, ["nix-store", "--realise", "--dry-run", last])),
      );
      return [
        {
          measure: `nix-instantiate of ${PACKAGES} packages, view \`store\``,
          unit: "ms",
          ours: evaluated.ours,
          others: { direct: evaluated.direct },
          target: { bound: "at most", value: 1.5, against: "direct" },
        },
        {
          measure: "dry run over all that they need, view `store`",
          unit: "ms",
          ours: dry.ours,
          others: { direct: dry.direct },
          target: { bound: "at most", value: 1.5, against: "direct" },
        },
      ];
    } finally {
      await broker.stop();
    }
  },
};
