/** The service dies after the build and before the post-build hook, and the collector runs: nothing is lost. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../../lab/parts.ts";
import { program } from "../../lab/program.ts";
import { RecursiveLab, ways } from "../../lab/recursive.ts";
import { innerDerivation, outer, writeFile } from "./scripts.ts";

/** Of several lines the last one counts. */
const config = "post-build-hook = /tmp/signal/hook.sh\n";
const hook = `#!/bin/sh
case $DRV_PATH in *-outer-*)
  touch /tmp/signal/at-hook
  until [ -e /tmp/signal/go ]; do sleep 0.2; done
esac
exec ${program.postBuildHook}
`;

describe.each(ways)("the service is killed before the post-build hook [daemon %s, %s]", (version, way) => {
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { config, hooks: way === "hooks" });
    await made.daemon.run(
      ["sh", "-c", "mkdir /tmp/signal; cat > /tmp/signal/hook.sh; chmod 755 /tmp/signal/hook.sh"],
      {
        input: hook,
      },
    );
  });
  afterAll(() => made?.stop());
  const signal = (name: string) => made.daemon.hostPath(`/tmp/signal/${name}`);
  const run = async (...argv: string[]): Promise<string> => (await made.daemon.run(argv)).stdout.trim();

  test.each(["started before the hook", "started after the hook"])(
    "G6: nothing is lost, and the references are right [service %s]",
    async (when) => {
      const before = when === "started before the hook";
      const name = `inner-${before}`;
      await made.daemon.run(["sh", "-c", "rm -f /tmp/signal/go /tmp/signal/at-hook"]);
      const building = made.daemon.build(
        outer(
          `
${writeFile("inner.nix", innerDerivation(name, "echo from inside > $out"))}
nix-build --no-out-link inner.nix > $out`,
          { name: `outer-${before}` },
        ),
        { args: ["--out-link", `/tmp/result-${before}`] },
      );
      await until(() => existsSync(signal("at-hook")));
      await made.broker?.stop("SIGKILL");
      await run("nix-collect-garbage");
      if (before) await made.startService();
      writeFileSync(signal("go"), "");
      const { out } = await building;
      if (!before) await made.startService();
      await run("nix-collect-garbage");
      const inner = await run("nix-store", "-q", "--references", out);
      expect(inner).toMatch(new RegExp(`^\\S+-${name}$`));
      expect(readFileSync(made.daemon.hostPath(inner), "utf8")).toBe("from inside\n");
      await run("nix-store", "--verify-path", inner, out);
      // Nothing of the sandbox stays.
      const left = (folder: string) => readdirSync(made.daemon.hostPath(folder));
      await until(() => left("/run/nix-broker/sandboxes").length === 0);
      expect(left("/nix/var/nix/gcroots/nix-broker")).toEqual([]);
    },
  );
});
