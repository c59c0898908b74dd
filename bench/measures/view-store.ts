import type { Measure } from "../measure.ts";
import { inRounds, timed } from "../rounds.ts";
import { instantiateGraph, remoteNames, startStoreJail } from "../store-jail.ts";

const PACKAGES = 200;

/** A static socket with the view `store`, as jails get that see the whole store anyway. */
export const viewStore: Measure = {
  name: "view-store",
  about: `view \`store\`: nix-instantiate of ${PACKAGES} packages`,
  async run(bench) {
    const jail = await startStoreJail(bench, "bench-store");
    try {
      let salt = 0;
      const { ours, direct } = await inRounds(bench.rounds, remoteNames, (name) => {
        const command = instantiateGraph("all", PACKAGES, `${process.pid}-${++salt}`);
        return timed(() => jail.run(name, command));
      });
      return [
        {
          measure: `nix-instantiate of ${PACKAGES} packages, view \`store\``,
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
