import { expect, test } from "vitest";
import type { UpstreamConnection } from "../../src/sandbox/upstream/connection.ts";
import { KeptUpstreams } from "../../src/sandbox/upstream/kept.ts";

/** What is looked at of a connection. */
function connection(opened: number) {
  const made = {
    opened,
    destroyed: false,
    outOfStep: false,
    greeting: { minor: 38, features: new Set<never>() },
    onClose: undefined,
    destroy() {
      made.destroyed = true;
    },
  };
  return made as typeof made & UpstreamConnection;
}

test("a connection waits for the next client until it is old: its temporary roots go with it", () => {
  const kept = new KeptUpstreams();
  const fresh = connection(performance.now());
  kept.keep(fresh);
  expect(fresh.destroyed).toBe(false);
  const old = connection(performance.now() - 11 * 60_000);
  kept.keep(old);
  expect(old.destroyed).toBe(true);
  kept.close();
  expect(fresh.destroyed).toBe(true);
});
