/**
 * A derivation that a cache has and the store does not: fetching it must not build it. To daemons of Nix 2.3 a bare `X.drv` in a
 * build request means all its outputs.
 */
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { deletePaths } from "../../lab/package-graph.ts";
import { addDerivation, makeDerivation } from "../attack/derivations.ts";
import { describeAttack } from "../attack/suite.ts";

const CACHE = "/var/cache/derivations";

describeAttack(
  "a derivation in a cache",
  ({ version, daemon, bare, brokered }) => {
    test.each(["EnsurePath", "BuildPaths"] as const)(
      "%s fetches it and does not build it",
      async (operation) => {
        const outside = await bare();
        const text = `fetched by ${operation}`;
        const made = makeDerivation({
          name: operation,
          script: `printf '${text}' > $out`,
          sha256: createHash("sha256").update(text).digest("hex"),
        });
        await addDerivation(outside, made);
        const flags = version === "2.3" ? "" : "--extra-experimental-features nix-command";
        // From 2.4 on a bare derivation would mean its outputs.
        const derivation = version === "2.3" ? "" : "--derivation";
        const copy = `nix ${flags} copy --no-check-sigs ${derivation} --to file://${CACHE} ${made.path}`;
        const { code, stderr } = await daemon().run(["sh", "-c", copy], { env: { NIX_REMOTE: "" } });
        expect(code, stderr).toBe(0);
        // Its temporary roots would keep the derivation.
        outside.close();
        await deletePaths(daemon(), [made.path]);

        const client = await brokered();
        const { error } =
          operation === "EnsurePath"
            ? await client.ask(operation, { path: made.path })
            : await client.ask(operation, { paths: [made.path], mode: 0 });
        const after = await bare();
        expect(await after.must("IsValidPath", { path: made.out })).toBe(false);
        if (operation === "EnsurePath" || client.minor >= 30) {
          expect(error).toBeUndefined();
          expect(await after.must("IsValidPath", { path: made.path })).toBe(true);
        } else expect(error).toBe(`path '${made.path}' is not valid`);
      },
    );
  },
  {
    broker: { profile: "agent", view: "store" },
    daemon: {
      config: `substituters = file://${CACHE}\nbinary-caches = file://${CACHE}\nrequire-sigs = false\nnarinfo-cache-negative-ttl = 0\nnarinfo-cache-positive-ttl = 0\n`,
    },
  },
);
