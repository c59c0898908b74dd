import type { Measure } from "../measure.ts";
import { inRounds, median, timed } from "../rounds.ts";
import { subjectNames } from "../subjects.ts";
import { visit } from "../visit.ts";

const SAMPLES = 50;

/** The daemon forks a process for each connection; the broker shakes hands by itself. */
export const connect: Measure = {
  name: "connect",
  about: "connect and shake hands",
  async run(bench) {
    const { sockets } = await bench.subjects();
    const { ours, ...others } = await inRounds(bench.rounds, subjectNames, async (name) => {
      const times: number[] = [];
      for (let i = 0; i < SAMPLES; i++) times.push(await timed(() => visit(sockets[name])));
      return median(times);
    });
    return [
      {
        measure: "connect + handshake",
        unit: "ms",
        ours,
        others,
        target: { bound: "at most", value: 0.15, against: "direct" },
      },
    ];
  },
};
