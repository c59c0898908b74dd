/** Two minutes of what `npm run soak` does for twenty, on a version that its seed chooses. */
import { expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { report } from "../../soak/report.ts";
import { soak } from "../../soak/soak.ts";

const minutes = 2;
const seed = Date.now() % 2 ** 32;
const version = lab.versions[seed % lab.versions.length] ?? "2.34";
/** Each of its waits is bounded on its own, more narrowly. */
const timeout = 60 * 60_000;

test(`G6, G8: whatever succeeds while everything is killed, stopped and restarted is right, and nothing is left over [daemon ${version}]`, {
  timeout,
  // A fault that does not come again is one all the same.
  retry: 0,
}, async () => {
  const result = await soak({ version, seed, minutes, say: () => {} });
  const run = `--nix ${version} --minutes ${minutes} --seed ${seed}\n${report(result)}`;
  expect(result.tally.faults, run).toEqual([]);
  expect(result.tally.builds.get("succeeded"), run).toBeGreaterThan(1);
});
