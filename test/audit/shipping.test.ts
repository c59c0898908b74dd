/** docs/shipping/ship.mjs against servers that take what Loki and an OpenTelemetry collector take. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { jsonLine } from "../../src/audit/json-line.ts";
import { request, storePath } from "./folder.ts";

const ship = join(import.meta.dirname, "../../docs/shipping/ship.mjs");
const records = [1, 2, 3].map((seq) => ({
  ...request({ verdict: seq === 2 ? "deny" : "answer", subjects: [storePath(seq)] }),
  seq,
  hash: "h",
}));

let refusals = 0;
let pushed: { url: string | undefined; body: Record<string, unknown> }[] = [];
const server = createServer((incoming, response) => {
  let text = "";
  incoming.on("data", (chunk: Buffer) => {
    text += chunk.toString();
  });
  incoming.on("end", () => {
    if (refusals-- > 0) response.writeHead(503).end("busy");
    else {
      pushed.push({ url: incoming.url, body: JSON.parse(text) });
      response.writeHead(204).end();
    }
  });
});
beforeEach(async () => {
  pushed = [];
  refusals = 0;
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});
afterEach(() => new Promise((done) => server.close(done)));

async function run(name: string, ...args: string[]): Promise<string> {
  const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const child = spawn(process.execPath, [ship, name, address, ...args], {
    stdio: ["pipe", "pipe", "ignore"],
  });
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  child.stdin.end(records.map((record) => `${jsonLine(record)}\n`).join(""));
  expect((await once(child, "close"))[0]).toBe(0);
  return said;
}

test("Loki gets streams by kind and verdict, times in nanoseconds, the record as the line", async () => {
  expect(await run("loki")).toBe("3\n");
  expect(pushed).toMatchObject([{ url: "/loki/api/v1/push" }]);
  const streams = pushed[0]?.body.streams as { stream: object; values: [string, string][] }[];
  expect(streams.map(({ stream }) => stream)).toEqual([
    { job: "nix-broker", kind: "request", verdict: "answer" },
    { job: "nix-broker", kind: "request", verdict: "deny" },
  ]);
  expect(streams[0]?.values.map(([time]) => time)).toEqual(["1763800000000000000", "1763800000000000000"]);
  expect(JSON.parse(streams[1]?.values[0]?.[1] ?? "")).toMatchObject({ seq: 2, subjects: [storePath(2)] });
});

test("a collector gets OTLP logs; what was refused is sent again; --after leaves out what is there", async () => {
  refusals = 1;
  expect(await run("otlp", "--after", "1")).toBe("3\n");
  expect(pushed).toMatchObject([
    {
      url: "/v1/logs",
      body: {
        resourceLogs: [
          {
            resource: { attributes: [{ key: "service.name", value: { stringValue: "nix-broker" } }] },
            scopeLogs: [
              {
                logRecords: [
                  { timeUnixNano: "1763800000000000000", severityText: "WARN" },
                  { timeUnixNano: "1763800000000000000", severityText: "INFO" },
                ],
              },
            ],
          },
        ],
      },
    },
  ]);
});
