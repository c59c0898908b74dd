import { expect, test } from "vitest";
import type { BuildExchange } from "../../src/sandbox/forward/exchange.ts";
import { heldOnConnection } from "../../src/sandbox/forward/held-outputs.ts";
import type { UpstreamConnection } from "../../src/sandbox/upstream/connection.ts";

const [a, b] = ["a", "b"].map((name) => `/nix/store/${"0".repeat(32)}-${name}`) as [string, string];
const exchange = {
  sandbox: { profile: { limits: { requestDeadline: 600 } } },
  options: {},
} as unknown as BuildExchange;

/** Notes what it is asked. */
function upstream(valid: Set<string>, asked: string[]): UpstreamConnection {
  return {
    async askEach(name: string, requests: readonly { path: string }[]) {
      for (const { path } of requests) asked.push(`${name} ${path.at(-1)}`);
      return requests.map(() => 1);
    },
    async ask(name: string, { paths }: { paths: string[] }) {
      asked.push(name);
      return paths.filter((path) => valid.has(path));
    },
    destroy() {},
  } as unknown as UpstreamConnection;
}

test("outputs are rooted, once on each connection, and only then asked about, for each request anew", async () => {
  const asked: string[] = [];
  const valid = new Set([a]);
  const connection = upstream(valid, asked);
  expect(await heldOnConnection(exchange, connection, []).among([a, b])).toEqual(new Set([a]));
  expect(asked).toEqual(["AddTempRoot a", "AddTempRoot b", "QueryValidPaths"]);
  asked.length = 0;
  // By force, as root can.
  valid.delete(a);
  expect(await heldOnConnection(exchange, connection, []).among([a])).toEqual(new Set());
  expect(asked).toEqual(["QueryValidPaths"]);
  asked.length = 0;
  expect(await heldOnConnection(exchange, upstream(valid, asked), []).keep([b])).toEqual(new Set());
  expect(asked).toEqual(["AddTempRoot b", "QueryValidPaths"]);
});
