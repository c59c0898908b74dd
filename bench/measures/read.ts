import { connectClient, read as readReply } from "../client.ts";
import type { Bench, Measure, Row, Target } from "../measure.ts";
import { nar } from "../requests.ts";
import { inRounds, timed } from "../rounds.ts";
import { type StoreContents, subjectNames } from "../subjects.ts";

const MIB = 1024 ** 2;

async function reading(
  bench: Bench,
  which: keyof StoreContents,
  measure: string,
  target: Target,
): Promise<Row> {
  const { sockets, contents } = await bench.subjects();
  const { ours, ...others } = await inRounds(bench.rounds, subjectNames, async (name) => {
    const client = await connectClient(sockets[name]);
    const prepared = await nar(client, contents[which]);
    const milliseconds = await timed(() => readReply(client, prepared));
    client.close();
    return prepared.replyBytes / MIB / (milliseconds / 1000);
  });
  return { measure, unit: "MiB/s", ours, others, target };
}

export const read: Measure = {
  name: "read",
  about: "read 1 GiB, and 20 000 small files, by NarFromPath",
  async run(bench) {
    return [
      await reading(bench, "large", "reading 1 GiB", { bound: "at least", value: 1.8, against: "socat" }),
      await reading(bench, "manyFiles", "reading 20 000 small files", {
        bound: "at least",
        value: 0.95,
        against: "socat",
      }),
    ];
  },
};
