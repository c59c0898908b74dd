/**
 * For each operation: one client sends the worst requests that the default limits allow, one after the other, while
 * a client of another sandbox asks all the time. How long that one waits at most, and the peak of memory.
 */
import { connect } from "node:net";
import { manyOutputs, worstRequests } from "../../lab/worst-requests.ts";
import { defaultLimits } from "../../src/policy/limits.ts";
import { operationNames, operations } from "../../src/protocol/operations.ts";
import { NEWEST_MINOR, versionToWire } from "../../src/protocol/version.ts";
import { Encoder } from "../../src/protocol/wire.ts";
import { connectClient } from "../client.ts";
import type { Measure, Row } from "../measure.ts";
import { BenchBroker } from "../subjects.ts";
import { Waiting } from "../waiting.ts";

const MIB = 1024 ** 2;
const MAGIC_1 = 0x6e697863;
/** The bound is for the request in all; its number and names have some bytes too. */
const REQUEST_BYTES = defaultLimits.requestBytes - MIB;
const MOST_MS = 50;
const MOST_MIB = 512;

export const longestWait: Measure = {
  name: "longest-wait",
  about: "the worst requests of each operation: how long another sandbox's client waits at most, and memory",
  async run(bench) {
    const { daemon, contents } = await bench.subjects();
    const view = [contents.tiny, contents.other];
    const broker = await BenchBroker.start(daemon, { name: "wait", sockets: 2, view });
    const [attacked = "", asked = ""] = broker.sockets;
    const waiting = new Waiting(asked, contents.tiny);
    try {
      const client = await connectClient(attacked);
      const { table } = client;
      const derivation = await client.addText("many.drv", manyOutputs(), []);
      client.close();
      if (derivation.error !== undefined) throw new Error(derivation.error);
      const rows: Row[] = [];
      broker.forgetPeak();
      for (const name of operationNames) {
        if (!table.byNumber.has(operations[name].number)) continue;
        await waiting.longest();
        const options = { table, requestBytes: REQUEST_BYTES, paths: view, derivation: derivation.path };
        for (const { bytes } of worstRequests(name, options)) await ask(attacked, bytes);
        rows.push({
          measure: `longest wait: ${name}`,
          unit: "ms",
          ours: await waiting.longest(),
          others: {},
          target: { bound: "at most", value: MOST_MS, against: "itself" },
        });
      }
      rows.push({
        measure: "longest wait: peak of memory",
        unit: "MiB",
        ours: broker.peak / MIB,
        others: {},
        target: { bound: "at most", value: MOST_MIB, against: "itself" },
      });
      return rows;
    } finally {
      await waiting.stop();
      await broker.stop();
    }
  },
};

function numbers(...values: number[]): Buffer {
  const encoder = new Encoder();
  for (const value of values) encoder.u64(value);
  return encoder.finish();
}

/** Sends a request, and reads whatever comes of it. */
function ask(socket: string, request: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const client = connect({ path: socket, allowHalfOpen: true });
    client.on("data", () => undefined);
    // It may be cut off in the middle of its request, with an answer that says why.
    client.on("error", () => undefined);
    client.on("close", () => resolve());
    client.on("end", () => client.end());
    client.write(numbers(MAGIC_1, versionToWire(NEWEST_MINOR), 0, 0, 0));
    client.end(request);
  });
}
