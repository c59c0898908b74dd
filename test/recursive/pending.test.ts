/** What nobody may have before it is whole: the output of a build whose references could not be registered. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { addDerivation, makeDerivation } from "../attack/derivations.ts";
import { RawClient } from "../attack/raw-client.ts";
import { lab } from "../lab/lab.ts";
import { RecursiveLab } from "./fixture.ts";
import { innerDerivation, writeFile } from "./scripts.ts";

describe.each(lab.versions)("references that are registered late [daemon %s]", (version) => {
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { rootConfig: "nix_store=/usr/bin/false\n" });
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

  test.each(["as it was", "started anew meanwhile"])(
    "G6: no sandbox gets the output before its references are registered [service %s]",
    async (how) => {
      const restarted = how !== "as it was";
      const client = await RawClient.connect(made.broker!.hostSocket);
      const inner = `inner-${restarted}`;
      const derivation = makeDerivation({
        name: "late",
        script: `set -e; export HOME=$PWD/home; mkdir $HOME
${writeFile("inner.nix", innerDerivation(inner, "echo inner > $out"))}
nix-build --no-out-link inner.nix > $out`,
        env: { PATH: `/lab/${version}/bin:/usr/bin:/bin`, requiredSystemFeatures: "nix-broker" },
      });
      const path = await addDerivation(client, derivation);
      let answered = false;
      let asking = client.build(`${path}!out`).then((result) => {
        answered = true;
        return result;
      });
      asking.catch(() => undefined);
      while (!outcomes().includes("pending")) await sleep(20);
      if (restarted) {
        await made.broker?.stop("SIGKILL");
        answered = false;
        await made.startService();
      }
      const second = restarted ? await RawClient.connect(made.broker!.hostSocket) : client;
      if (restarted) {
        await addDerivation(second, derivation);
        asking = second.build(`${path}!out`).then((result) => {
          answered = true;
          return result;
        });
      }
      // It would be answered by now.
      await sleep(3000);
      expect(answered).toBe(false);

      writeFileSync(made.daemon.hostPath("/etc/nix-broker/root.conf"), "");
      await made.stopLinker();
      await made.startLinker();
      expect((await asking).error).toBeUndefined();
      const info = await second.must("QueryPathInfo", { path: derivation.out });
      expect(info?.references).toEqual([expect.stringMatching(new RegExp(`-${inner}$`))]);
      client.close();
      second.close();
      writeFileSync(made.daemon.hostPath("/etc/nix-broker/root.conf"), "nix_store=/usr/bin/false\n");
      await made.stopLinker();
      await made.startLinker();
    },
  );
});
