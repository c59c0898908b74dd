import type { Measure } from "../measure.ts";
import { RawClient } from "../raw-client.ts";
import { isValid, tinyNar } from "../requests.ts";
import { BenchBroker } from "../subjects.ts";

const SANDBOXES = 200;
const MIB = 1024 ** 2;
/** Of each of the two halves. */
const SECONDS = 10;

/** Every client asks as fast as it is answered. @returns how many requests each had answered */
async function load(clients: readonly RawClient[], requests: readonly Buffer[]): Promise<number[]> {
  const end = performance.now() + SECONDS * 1000;
  return Promise.all(
    clients.map(async (client, i) => {
      let count = 0;
      for (const request = requests[i]; request && performance.now() < end; count++)
        await client.exchange(request, 16);
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
    const clients: RawClient[] = [];
    try {
      for (const socket of broker.sockets) {
        const client = await RawClient.connect(socket);
        clients.push(client);
        const { request, replyBytes } = tinyNar(client, contents.tiny);
        await client.exchange(request, replyBytes);
      }
      const requests = clients.map((client) => isValid(client, contents.tiny).request);
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
