import { setTimeout as sleep } from "node:timers/promises";
import { connectClient } from "../client.ts";
import type { Measure } from "../measure.ts";
import { tinyNar } from "../requests.ts";
import { inRounds, median, timed } from "../rounds.ts";
import { subjectNames } from "../subjects.ts";
import { visit } from "../visit.ts";

const SAMPLES = 10;
/** Lets the pool fill up again: a broker that is not constantly used is measured. */
const PAUSE_MS = 60;

export const firstForward: Measure = {
  name: "first-forward",
  about: "connect, shake hands, and have one request forwarded",
  async run(bench) {
    const { sockets, contents } = await bench.subjects();
    const client = await connectClient(sockets.direct);
    const prepared = tinyNar(client, contents.tiny);
    client.close();
    const { ours, ...others } = await inRounds(bench.rounds, subjectNames, async (name) => {
      const times: number[] = [];
      for (let i = 0; i < SAMPLES; i++) {
        await sleep(PAUSE_MS);
        times.push(await timed(() => visit(sockets[name], prepared)));
      }
      return median(times);
    });
    return [
      {
        measure: "handshake + first forwarded request",
        unit: "ms",
        ours,
        others,
        target: { bound: "at most", value: 0.35, against: "direct" },
      },
    ];
  },
};
