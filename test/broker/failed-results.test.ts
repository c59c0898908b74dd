/** What the audit has of a BuildPathsWithResults in which something failed: its reply is no error. */
import { expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { addDerivation, makeDerivation } from "../attack/derivations.ts";
import { describeAttack } from "../attack/suite.ts";

describeAttack(
  "the results of BuildPathsWithResults",
  ({ brokered, broker }) => {
    const ask = async (...scripts: string[]) => {
      const client = await brokered();
      const made = scripts.map((script, i) => makeDerivation({ name: `results-${i}`, script }));
      for (const each of made) await addDerivation(client, each);
      const paths = made.map(({ path }) => `${path}!out`);
      const results = await client.must("BuildPathsWithResults", { paths, mode: 0 });
      const row = (await broker().audit("--op", "BuildPathsWithResults", "--kind", "request")).at(-1);
      return { paths, results, row };
    };

    test("G7: of several failures each is recorded, and the request as a failed build", async () => {
      const { paths, results, row } = await ask("exit 4", "exit 5", "exit 6");
      expect(results.map(({ status }) => status)).not.toContain(0);
      expect(row).toMatchObject({
        verdict: "forward",
        reason: "the build failed",
        detail: { failures: paths.map((path, i) => ({ path, reason: results[i]!.error })) },
      });
      expect(row?.upstreamError).toMatch(/failed with exit code|Build failed/);
    });

    test("what was built is no failure", async () => {
      const { results, row } = await ask("echo fine > $out");
      expect(results).toMatchObject([{ status: 0 }]);
      expect(row?.reason).toBeUndefined();
      expect(row?.upstreamError).toBeUndefined();
      expect(row?.detail).toBeUndefined();
    });
  },
  { versions: () => lab.versions.filter((version) => version !== "2.3") },
);
