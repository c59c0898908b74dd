import type { Measure } from "../measure.ts";
import { innerLoop, type NestedName, nestedNames, outerBuild, startNested } from "../nested.ts";
import { inRounds, median, timed } from "../rounds.ts";
import { Waiting } from "../waiting.ts";

const OUTERS = 16;
const INNER = 3;
const MOST_MS = 50;

/** Anything does: it is only asked whether it is there. */
const ASKED = `/nix/store/${"0".repeat(32)}-asked`;

/** What recursive-nix sometimes ends with, where many builds build at once. */
const CRASH = "Nix daemon disconnected unexpectedly";
const ATTEMPTS = 5;

function outerBuilds(feature: string, salt: string): string {
  const each = Array.from({ length: OUTERS }, (_, i) =>
    outerBuild(innerLoop(INNER, `${salt}-${i}`), feature, `outer-${i}`),
  );
  return `[ ${each.map((outer) => `(${outer})`).join("\n")} ]`;
}

export const manyOuters: Measure = {
  name: "many-outers",
  about: `${OUTERS} outer builds at once, each with ${INNER} inner ones, and how long a quiet client waits meanwhile`,
  async run(bench) {
    const nested = await startNested((await bench.subjects()).daemon.version, OUTERS);
    const waiting = new Map(nestedNames.map((name) => [name, new Waiting(nested.sockets[name], ASKED)]));
    const waits: Record<NestedName, number[]> = { ours: [], theirs: [] };
    try {
      let salt = 0;
      async function once(name: NestedName, attempts = name === "theirs" ? ATTEMPTS : 1): Promise<number> {
        const round = `${process.pid}-${++salt}`;
        await waiting.get(name)?.longest();
        try {
          const took = await timed(() => nested.build(name, (feature) => outerBuilds(feature, round)));
          waits[name].push((await waiting.get(name)?.longest()) ?? Number.NaN);
          return took;
        } catch (error) {
          if (attempts === 1 || !(error as Error).message.includes(CRASH)) throw error;
          process.stderr.write(`bench: recursive-nix said "${CRASH}"; measured again\n`);
          return once(name, attempts - 1);
        }
      }
      const { ours, theirs } = await inRounds(bench.rounds, nestedNames, (name) => once(name));
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
