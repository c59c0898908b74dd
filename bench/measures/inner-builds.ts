import { type Daemon, lab, sandboxScript } from "../../lab/lab.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import type { Measure } from "../measure.ts";
import { inRounds, timed } from "../rounds.ts";

const INNER = 100;

/** An outer build that calls nix-build a hundred times; `salt` makes all of it new. */
function outer(feature: string, salt: string): string {
  return sandboxScript(
    `export HOME=$PWD
cat > inner.nix <<'END'
{ number }: derivation {
  name = "inner-\${number}"; salt = "${salt}"; system = builtins.currentSystem;
  builder = "/bin/sh"; args = [ "-c" "echo \${number} > $out; :" ];
}
END
for i in $(seq ${INNER}); do
  nix-build --no-out-link inner.nix --argstr number $i 2> log || { cat log >&2; exit 1; }
done > $out`,
    { name: "outer", features: [feature] },
  );
}

export const innerBuilds: Measure = {
  name: "inner-builds",
  about: `${INNER} inner builds in one outer build, against Nix's own recursive-nix`,
  async run(bench) {
    const { version } = (await bench.subjects()).daemon;
    const recursive = await RecursiveLab.start(version, { memory: true });
    const own = await lab.start(version, {
      memory: true,
      systemFeatures: ["recursive-nix"],
      config: "experimental-features = nix-command recursive-nix\n",
    });
    try {
      let salt = 0;
      const build = (daemon: Daemon, feature: string) =>
        timed(() => daemon.build(outer(feature, `${process.pid}-${++salt}`), { timeoutMs: 600_000 }));
      const { ours, theirs } = await inRounds(bench.rounds, ["ours", "theirs"], (name) =>
        name === "ours" ? build(recursive.daemon, "nix-broker") : build(own, "recursive-nix"),
      );
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
      await recursive.stop();
      await own.stop();
    }
  },
};
