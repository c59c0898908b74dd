import type { Daemon } from "../../lab/lab.ts";
import type { Measure } from "../measure.ts";
import { innerLoop, nestedNames, outerBuild, startNested } from "../nested.ts";
import { inRounds, timed } from "../rounds.ts";
import { remoteNames, startStoreJail } from "../store-jail.ts";

const BUILDS = 100;
const CLOSURE = 2000;

/** A text that refers to all others of the closure. */
const closure = `builtins.toFile "closure"
  (toString (builtins.genList (i: builtins.toFile "part-\${toString i}" "\${toString i}\\n") ${CLOSURE - 1}))`;

async function addClosure(daemon: Daemon): Promise<string> {
  const { code, stdout, stderr } = await daemon.run(
    ["nix-instantiate", "--eval", "--read-write-mode", "--expr", closure],
    {
      timeoutMs: 600_000,
    },
  );
  if (code !== 0) throw new Error(`nix-instantiate ended with ${code}: ${stderr}`);
  return stdout.trim().replaceAll('"', "");
}

export const buildsOverClosure: Measure = {
  name: "builds-over-closure",
  about: `${BUILDS} builds of what needs a path whose closure is ${CLOSURE} paths: in a build, and view \`store\``,
  async run(bench) {
    const { daemon } = await bench.subjects();
    const path = await addClosure(daemon);
    const nested = await startNested(daemon.version);
    const jail = await startStoreJail(bench, "bench-closure");
    try {
      for (const name of nestedNames) await addClosure(nested.daemons[name]);
      let salt = 0;
      const script = (): string => innerLoop(BUILDS, `${process.pid}-${++salt}`, path);
      const inBuild = await inRounds(bench.rounds, nestedNames, (name) => {
        const text = `cat ${path} > /dev/null; ${script()}`;
        const expression = (feature: string): string =>
          `let closure = ${closure}; in ${outerBuild(text, feature).replace(/\}$/, "inherit closure; }")}`;
        return timed(() => nested.build(name, expression));
      });
      const inJail = await inRounds(bench.rounds, remoteNames, (name) =>
        timed(() => jail.run(name, ["bash", "-e", "-c", script()])),
      );
      return [
        {
          measure: `${BUILDS} builds above a closure of ${CLOSURE}, in a build`,
          unit: "ms",
          ours: inBuild.ours,
          others: { "recursive-nix": inBuild.theirs },
          target: { bound: "at most", value: 1, against: "recursive-nix" },
        },
        {
          measure: `${BUILDS} builds above a closure of ${CLOSURE}, view \`store\``,
          unit: "ms",
          ours: inJail.ours,
          others: { direct: inJail.direct },
          target: { bound: "at most", value: 1.2, against: "direct" },
        },
      ];
    } finally {
      await jail.stop();
      await nested.stop();
    }
  },
};
