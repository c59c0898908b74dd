import { type BenchClient, connectClient, exchange } from "../client.ts";
import type { Measure } from "../measure.ts";
import { isValid, type Prepared, tinyNar } from "../requests.ts";
import { BenchBroker } from "../subjects.ts";

const SANDBOXES = 200;
const MIB = 1024 ** 2;
/** Of each of the two halves. */
const SECONDS = 10;

/** Every client asks as fast as it gets answers. @returns how many answers each got */
async function load(clients: readonly BenchClient[], requests: readonly Prepared[]): Promise<number[]> {
  const end = performance.now() + SECONDS * 1000;
  return Promise.all(
    clients.map(async (client, i) => {
      let count = 0;
      for (const request = requests[i]; request && performance.now() < end; count++)
        await exchange(client, request);
      return count;
    }),
  );
}

export const sandboxes: Measure = {
  name: "sandboxes",
  about: `${SANDBOXES} sandboxes open, each with a client that asks all the time: memory and fairness`,
  async run(bench) {
    const { daemon, contents } = await bench.subjects();
    const broker = await BenchBroker.start(daemon, {
      name: "many",
      sockets: SANDBOXES,
      view: [contents.tiny],
    });
    const clients: BenchClient[] = [];
    try {
      for (const socket of broker.sockets) {
        const client = await connectClient(socket);
        clients.push(client);
        await exchange(client, tinyNar(client, contents.tiny));
      }
      const requests = clients.map((client) => isValid(client, contents.tiny));
      await load(clients, requests);
      const half = broker.resident;
      const counts = await load(clients, requests);
      const end = broker.resident;
      return [
        {
          measure: `${SANDBOXES} sandboxes: memory`,
          unit: "MiB",
          ours: end / MIB,
          others: {},
          target: { bound: "at most", value: 130, against: "itself" },
        },
        {
          measure: "  growth over the second half",
          unit: "MiB",
          ours: (end - half) / MIB,
          others: {},
          target: { bound: "at most", value: 2, against: "itself" },
        },
        {
          measure: "  slowest client by fastest",
          unit: "ratio",
          ours: Math.min(...counts) / Math.max(...counts),
          others: {},
          target: { bound: "at least", value: 0.8, against: "itself" },
        },
      ];
    } finally {
      for (const client of clients) client.close();
      await broker.stop();
    }
  },
};
