import { type BenchClient, connectClient, exchange } from "../client.ts";
import type { Bench, Measure, Target } from "../measure.ts";
import { isValid, type Prepared, tinyNar } from "../requests.ts";
import { inRounds, timed } from "../rounds.ts";
import { type StoreContents, subjectNames } from "../subjects.ts";

/** Two requests that take turns: equal ones in a row would share an audit record. */
type Prepare = (client: BenchClient, contents: StoreContents) => readonly [Prepared, Prepared];

/** Microseconds per request, on an open connection, one after the other. */
async function perRequest(
  { rounds, subjects }: Bench,
  count: number,
  prepare: Prepare,
): Promise<Record<(typeof subjectNames)[number], number>> {
  const { sockets, contents } = await subjects();
  return inRounds(rounds, subjectNames, async (name) => {
    const client = await connectClient(sockets[name]);
    const [one, other] = prepare(client, contents);
    const some = async (times: number): Promise<void> => {
      for (let i = 0; i < times; i += 2) {
        await exchange(client, one);
        await exchange(client, other);
      }
    };
    await some(count / 10);
    const milliseconds = await timed(() => some(count));
    client.close();
    return (milliseconds * 1000) / count;
  });
}

function measureOf(name: string, about: string, count: number, prepare: Prepare, target: Target): Measure {
  return {
    name,
    about,
    async run(bench) {
      const { ours, ...others } = await perRequest(bench, count, prepare);
      return [{ measure: `request ${name}, audit on`, unit: "µs", ours, others, target }];
    },
  };
}

export const answered = measureOf(
  "answered",
  "a request that the broker answers itself (IsValidPath), audit on",
  5000,
  (client, { tiny, other }) => [isValid(client, tiny), isValid(client, other)],
  { bound: "at most", value: 1.5, against: "direct" },
);

export const forwarded = measureOf(
  "forwarded",
  "a request that is forwarded (NarFromPath of a tiny file), audit on",
  2000,
  (client, { tiny, other }) => [tinyNar(client, tiny), tinyNar(client, other)],
  { bound: "at most", value: 1.25, against: "socat" },
);
