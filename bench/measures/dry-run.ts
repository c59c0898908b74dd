import type { Measure } from "../measure.ts";
import { inRounds, timed } from "../rounds.ts";
import { instantiateGraph, remoteNames, startStoreJail } from "../store-jail.ts";

/** Each is some three derivations. */
const PACKAGES = 200;

export const dryRun: Measure = {
  name: "dry-run",
  about: `what the last of ${PACKAGES} packages needs to be built, some 600 derivations, view \`store\``,
  async run(bench) {
    const jail = await startStoreJail(bench, "bench-dry");
    try {
      const made = await jail.run("direct", instantiateGraph("last", PACKAGES, `${process.pid}-dry`));
      const last = made.trim().replace(/!.*/, "");
      const { ours, direct } = await inRounds(bench.rounds, remoteNames, (name) =>
        timed(() => jail.run(name, ["nix-store", "--realise", "--dry-run", last])),
      );
      return [
        {
          measure: "dry run over 600 derivations, view `store`",
          unit: "ms",
          ours,
          others: { direct },
          target: { bound: "at most", value: 1.5, against: "direct" },
        },
      ];
    } finally {
      await jail.stop();
    }
  },
};
