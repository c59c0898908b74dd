/** What nobody may have before it is whole: the output of a build whose references could not be registered. */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { RecursiveLab, ways } from "../../lab/recursive.ts";
import { addDerivation, makeDerivation } from "../attack/derivations.ts";
import { innerDerivation, writeFile } from "./scripts.ts";

/** A socket that anyone may use: where builds see the static one, that is theirs alone. */
const second = "/var/lib/nix-broker/service/second";
const broken = "nix_store=/usr/bin/false\n";
const cases = ways.flatMap(([version, way]) =>
  (way === "hooks" ? ["goes on", "is started anew", "is there again after a reboot"] : ["goes on"]).map(
    (service) => [version, way, service] as const,
  ),
);

describe.each(ways)("references that are registered late [daemon %s, %s]", (version, way) => {
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, {
      hooks: way === "hooks",
      rootConfig: broken,
      serviceConfig: `[[listen]]\npath = "${second}"\nallow_uids = ["*"]\nview = "empty"\n`,
    });
  });
  afterAll(() => made?.stop());

  /** What the sandboxes that are over ended with. */
  const outcomes = (): string[] => {
    const folder = made.daemon.hostPath("/run/nix-broker/sandboxes");
    return readdirSync(folder).flatMap((id) => {
      try {
        return [String(JSON.parse(readFileSync(`${folder}/${id}/ended`, "utf8")).outcome)];
      } catch {
        return [];
      }
    });
  };
  const connect = () => RawClient.connect(made.daemon.hostPath(second));
  const configure = (text: string) => writeFileSync(made.daemon.hostPath("/etc/nix-broker/root.conf"), text);

  test.each(cases.filter((row) => row[0] === version && row[1] === way).map((row) => row[2]))(
    "G6: no sandbox gets the output before its references are registered [the service %s]",
    async (service) => {
      const restarted = service !== "goes on";
      const client = await connect();
      const inner = `inner-${service.replaceAll(" ", "-")}`;
      const derivation = makeDerivation({
        name: "late",
        script: `set -e; export HOME=$PWD/home; mkdir $HOME
${writeFile("inner.nix", innerDerivation(inner, "echo inner > $out"))}
nix-build --no-out-link inner.nix > $out`,
        env: { PATH: `/lab/${version}/bin:/usr/bin:/bin`, requiredSystemFeatures: "nix-broker" },
      });
      const path = await addDerivation(client, derivation);
      let answered = false;
      const ask = (asker: RawClient) => {
        const asking = asker.build(`${path}!out`).then((result) => {
          answered = true;
          return result;
        });
        asking.catch(() => undefined);
        return asking;
      };
      let asking = ask(client);
      await until(() => outcomes().includes("pending"));
      let asker = client;
      if (restarted) {
        await made.broker?.stop("SIGKILL");
        if (service.includes("reboot")) {
          await made.stopLinker("SIGKILL");
          rmSync(made.daemon.hostPath("/run/nix-broker"), { recursive: true });
          mkdirSync(made.daemon.hostPath("/run/nix-broker"));
        }
        answered = false;
        await made.startService();
        asker = await connect();
        await addDerivation(asker, derivation);
        asking = ask(asker);
      }
      // It would be answered by now.
      await sleep(3000);
      expect(answered).toBe(false);

      configure("");
      await made.stopLinker();
      await made.startLinker();
      expect((await asking).error).toBeUndefined();
      const info = await asker.must("QueryPathInfo", { path: derivation.out });
      expect(info?.references).toEqual([expect.stringMatching(new RegExp(`-${inner}$`))]);
      client.close();
      asker.close();
      configure(broken);
      await made.stopLinker();
      await made.startLinker();
    },
  );
});
