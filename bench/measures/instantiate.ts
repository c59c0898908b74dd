import { readFileSync } from "node:fs";
import { type Daemon, lab, sandboxScript } from "../../lab/lab.ts";
import { packageGraph } from "../../lab/package-graph.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import type { Measure } from "../measure.ts";
import { inRounds, median } from "../rounds.ts";

/** Each is some three derivations and a text. */
const PACKAGES = 350;

/** An outer build that evaluates the graph of packages; `salt` makes all of it new. Its output says when it did so. */
function outer(feature: string, salt: string): string {
  return sandboxScript(
    `export HOME=$PWD
cat > graph.nix <<'END'
${readFileSync(packageGraph, "utf8")}
END
began=$(date +%s%3N)
nix-instantiate graph.nix -A all --arg packages ${PACKAGES} --argstr salt ${salt} > log 2>&1 || { cat log >&2; exit 1; }
echo $began $(date +%s%3N) > $out`,
    { name: "outer", features: [feature] },
  );
}

/** Milliseconds: of the evaluation, and from its end to that of the build. */
async function evaluate(daemon: Daemon, feature: string, salt: string) {
  const { out } = await daemon.build(outer(feature, salt), { timeoutMs: 1_200_000 });
  const returned = Date.now();
  const [began = 0, ended = 0] = readFileSync(daemon.hostPath(out), "utf8").split(" ").map(Number);
  return { evaluation: ended - began, end: returned - ended };
}

export const instantiate: Measure = {
  name: "instantiate",
  about: `nix-instantiate of ${PACKAGES} packages in a build, and the end of that build, against recursive-nix`,
  async run(bench) {
    const { version } = (await bench.subjects()).daemon;
    const ours = await RecursiveLab.start(version, {
      memory: true,
      serviceConfig: '[limits]\naudit_rows = "unlimited"\n',
    });
    const theirs = await lab.start(version, {
      memory: true,
      systemFeatures: ["recursive-nix"],
      config: "experimental-features = nix-command recursive-nix\n",
    });
    try {
      let salt = 0;
      const ends = { ours: [] as number[], theirs: [] as number[] };
      const evaluations = await inRounds(bench.rounds, ["ours", "theirs"], async (name) => {
        const [daemon, feature] =
          name === "ours" ? ([ours.daemon, "nix-broker"] as const) : ([theirs, "recursive-nix"] as const);
        const { evaluation, end } = await evaluate(daemon, feature, `${process.pid}-${++salt}`);
        ends[name].push(end);
        return evaluation;
      });
      return [
        {
          measure: `nix-instantiate of ${PACKAGES} packages in a build`,
          unit: "ms",
          ours: evaluations.ours,
          others: { "recursive-nix": evaluations.theirs },
          target: { bound: "at most", value: 1, against: "recursive-nix" },
        },
        {
          measure: "  the end of that build",
          unit: "ms",
          ours: median(ends.ours),
          others: { "recursive-nix": median(ends.theirs) },
        },
      ];
    } finally {
      await ours.stop();
      await theirs.stop();
    }
  },
};
