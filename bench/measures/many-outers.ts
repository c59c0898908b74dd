import type { Measure } from "../measure.ts";
import { innerLoop, type NestedName, nestedNames, outerBuild, startNested } from "../nested.ts";
import { inRounds, median, timed } from "../rounds.ts";
import { Waiting } from "../waiting.ts";

const OUTERS = 16;
const INNER = 3;
const MOST_MS = 50;

/** Anything does: it is only asked whether it is there. */
const ASKED = `/nix/store/${"0".repeat(32)}-asked`;

export const manyOuters: Measure = {
  name: "many-outers",
  about: `${OUTERS} outer builds at once, each with ${INNER} inner ones, and how long a quiet client waits meanwhile`,
  async run(bench) {
    const nested = await startNested((await bench.subjects()).daemon.version, OUTERS);
    const waiting = new Map(nestedNames.map((name) => [name, new Waiting(nested.sockets[name], ASKED)]));
    const waits: Record<NestedName, number[]> = { ours: [], theirs: [] };
    try {
      let salt = 0;
      const { ours, theirs } = await inRounds(bench.rounds, nestedNames, async (name) => {
        const round = `${process.pid}-${++salt}`;
        const outers = (feature: string): string =>
          Array.from({ length: OUTERS }, (_, i) =>
            outerBuild(innerLoop(INNER, `${round}-${i}`), feature, `outer-${i}`),
          )
            .map((outer) => `(${outer})`)
            .join("\n");
        await waiting.get(name)?.longest();
        const took = await timed(() => nested.build(name, (feature) => `[ ${outers(feature)} ]`));
        waits[name].push((await waiting.get(name)?.longest()) ?? Number.NaN);
        return took;
      });
      return [
        {
          measure: `${OUTERS} outer builds at once, each with ${INNER} inner ones`,
          unit: "ms",
          ours,
          others: { "recursive-nix": theirs },
          target: { bound: "at most", value: 1, against: "recursive-nix" },
        },
        {
          measure: "  the longest wait of a quiet client meanwhile",
          unit: "ms",
          ours: median(waits.ours),
          others: { "recursive-nix": median(waits.theirs) },
          target: { bound: "at most", value: MOST_MS, against: "itself" },
        },
      ];
    } finally {
      for (const client of waiting.values()) await client.stop();
      await nested.stop();
    }
  },
};
