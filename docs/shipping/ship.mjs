#!/usr/bin/env node
/**
 * Pushes audit records, JSON lines on standard input, to Loki or an OpenTelemetry collector:
 *
 *     nix-broker audit --follow --json | ship.mjs loki|otlp URL [--after SEQ]
 *
 * Prints the place of the last record that was taken, and tries again what was not.
 */
import { createInterface } from "node:readline";

const BATCH = 500;
const WAIT_MS = 1000;
const PATIENCE_MS = 60_000;

const nanoseconds = (time) =>
  `${BigInt(Date.parse(time)) * 1_000_000n + BigInt(time.slice(23, 26) || 0) * 1000n}`;

const targets = {
  loki: {
    path: "/loki/api/v1/push",
    body(records) {
      const streams = new Map();
      for (const record of records) {
        // Labels are few and of our own words; what clients wrote is in the line.
        const stream = {
          job: "nix-broker",
          kind: record.kind,
          ...(record.verdict && { verdict: record.verdict }),
        };
        const key = JSON.stringify(stream);
        if (!streams.has(key)) streams.set(key, { stream, values: [] });
        streams.get(key).values.push([nanoseconds(record.time), JSON.stringify(record)]);
      }
      return { streams: [...streams.values()] };
    },
  },
  otlp: {
    path: "/v1/logs",
    body(records) {
      const text = (key, stringValue) => (stringValue === undefined ? [] : [{ key, value: { stringValue } }]);
      const logRecords = records.map((record) => ({
        timeUnixNano: nanoseconds(record.time),
        severityNumber: record.verdict === "deny" ? 13 : 9,
        severityText: record.verdict === "deny" ? "WARN" : "INFO",
        body: { stringValue: JSON.stringify(record) },
        attributes: [
          ...text("nix_broker.kind", record.kind),
          ...text("nix_broker.op", record.op),
          ...text("nix_broker.verdict", record.verdict),
          ...text("nix_broker.sandbox", record.sandbox),
          { key: "nix_broker.seq", value: { intValue: String(record.seq) } },
        ],
      }));
      const resource = { attributes: text("service.name", "nix-broker") };
      return {
        resourceLogs: [{ resource, scopeLogs: [{ scope: { name: "nix-broker.audit" }, logRecords }] }],
      };
    },
  },
};

const [name, address, option, place] = process.argv.slice(2);
const target = targets[name];
if (target === undefined || address === undefined || (option !== undefined && option !== "--after")) {
  console.error("usage: ship.mjs loki|otlp URL [--after SEQ]");
  process.exit(2);
}
const after = Number(place ?? 0);

const push = async (records) => {
  const body = JSON.stringify(target.body(records));
  const url = new URL(target.path, address);
  for (let wait = WAIT_MS; ; wait *= 2) {
    const problem = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
    }).then(
      async (answer) => (answer.ok ? undefined : `${answer.status} ${await answer.text()}`),
      (error) => error.message,
    );
    if (problem === undefined) break;
    if (wait > PATIENCE_MS) throw new Error(`${url}: ${problem}`);
    console.error(`${url}: ${problem}; trying again`);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
  console.log(records.at(-1).seq);
};

let waiting = [];
let pushing = Promise.resolve();
const flush = () => {
  const records = waiting;
  waiting = [];
  if (records.length > 0) pushing = pushing.then(() => push(records));
  return pushing;
};
const timer = setInterval(flush, WAIT_MS);
for await (const line of createInterface({ input: process.stdin })) {
  // Lines of the service's log have the record within.
  const parsed = line.startsWith("{") ? JSON.parse(line) : {};
  const record = parsed.audit ?? parsed;
  if (record.seq === undefined || record.seq <= after) continue;
  waiting.push(record);
  if (waiting.length >= BATCH) await flush();
}
clearInterval(timer);
await flush();
