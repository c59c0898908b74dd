import type { Measure } from "../measure.ts";
import { innerLoop, nestedNames, outerBuild, startNested } from "../nested.ts";
import { inRounds, timed } from "../rounds.ts";

const INNER = 100;

export const innerBuilds: Measure = {
  name: "inner-builds",
  about: `${INNER} inner builds in one outer build, against Nix's own recursive-nix`,
  async run(bench) {
    const nested = await startNested((await bench.subjects()).daemon.version);
    try {
      let salt = 0;
      const { ours, theirs } = await inRounds(bench.rounds, nestedNames, (name) => {
        const script = innerLoop(INNER, `${process.pid}-${++salt}`);
        return timed(() => nested.build(name, (feature) => outerBuild(script, feature)));
      });
      return [
        {
          measure: `outer build with ${INNER} inner builds`,
          unit: "ms",
          ours,
          others: { "recursive-nix": theirs },
          target: { bound: "at most", value: 1, against: "recursive-nix" },
        },
      ];
    } finally {
      await nested.stop();
    }
  },
};
