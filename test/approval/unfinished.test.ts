/**
 * Nix registers the output of an outer build before the post-build hook has added its references. What is built upon it must
 * have them all the same: so whoever asks for that waits, in every view, whichever way the output is read.
 */
import { chmodSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { addDerivation, type Made, makeDerivation } from "../attack/derivations.ts";
import { innerDerivation, writeFile } from "../recursive/scripts.ts";

const folder = "/var/lib/nix-broker/service";
const views = ["empty", "store"] as const;
type View = (typeof views)[number];
/** A nix-store that registers nothing before it may: so the hook does not get on. */
const held = "/etc/nix-broker/held-nix-store";
const mayGo = "/etc/nix-broker/may-go";
const moments = ["the hook has not finished", "registering has failed, and is to be tried again"] as const;

describe.each(lab.versions)("outputs whose references are still to come [daemon %s]", (version) => {
  let made: RecursiveLab;
  const clients: RawClient[] = [];
  beforeAll(async () => {
    made = await RecursiveLab.start(version, {
      serviceConfig: views
        .map(
          (view) =>
            `[[listen]]\npath = "${folder}/${view}"\nallow_uids = ["*"]\nprofile = "build"\nview = "${view}"\n`,
        )
        .join(""),
    });
    const script = `#!/bin/sh\nwhile [ ! -e ${mayGo} ]; do sleep 0.1; done\nexec nix-store "$@"\n`;
    writeFileSync(made.daemon.hostPath(held), script);
    chmodSync(made.daemon.hostPath(held), 0o755);
  });
  afterAll(async () => {
    for (const client of clients) client.close();
    await made?.stop();
  });

  const connect = async (socket: string): Promise<RawClient> => {
    const client = await RawClient.connect(socket);
    clients.push(client);
    return client;
  };
  const bare = () => connect(made.daemon.socket);
  const brokered = (view: View) => connect(made.daemon.hostPath(`${folder}/${view}`));
  const configure = (text: string) => writeFileSync(made.daemon.hostPath("/etc/nix-broker/root.conf"), text);
  const isPending = (): boolean => {
    const sandboxes = made.daemon.hostPath("/run/nix-broker/sandboxes");
    return readdirSync(sandboxes).some((id) => {
      try {
        return readFileSync(`${sandboxes}/${id}/ended`, "utf8").includes('"pending"');
      } catch {
        // It has not ended, or was removed since it was listed.
        return false;
      }
    });
  };
  const outerBuild = (name: string): Made =>
    makeDerivation({
      name,
      script: `set -e; export HOME=$PWD/home; mkdir $HOME
${writeFile("inner.nix", innerDerivation(`gained-by-${name}`, "echo gained > $out"))}
nix-build --no-out-link inner.nix > $out`,
      env: { PATH: `/lab/${version}/bin:/usr/bin:/bin`, requiredSystemFeatures: "nix-broker" },
    });
  /** Reads what the outer build's output says, and says it, too. */
  const repeats = (name: string, outer: Made, more: Partial<Parameters<typeof makeDerivation>[0]>): Made =>
    makeDerivation({ name, script: `read path < ${outer.out}; echo $path > $out`, ...more });

  test.each(moments.flatMap((moment) => views.map((view) => [moment, view] as const)))(
    "G6: what is built upon one has all references: %s [view %s]",
    async (moment, view) => {
      const isHeld = moment === moments[0];
      const tag = `${isHeld ? "held" : "pending"}-${view}`;
      rmSync(made.daemon.hostPath(mayGo), { force: true });
      configure(`nix_store=${isHeld ? held : "/usr/bin/false"}\n`);
      const outer = outerBuild(`outer-${tag}`);
      const host = await bare();
      await addDerivation(host, outer);
      const building = host.build(`${outer.path}!out`);
      building.catch(() => undefined);
      const looker = await bare();
      await until(async () => await looker.must("IsValidPath", { path: outer.out }));
      if (!isHeld) await until(isPending);

      const between = repeats(`between-${tag}`, outer, {
        inputs: [outer],
        script: `echo ${outer.out} > $out`,
      });
      const upon: Made[] = [repeats(`upon-${tag}`, outer, { inputs: [outer] })];
      if (view === "store") {
        // The host's own clients do not wait; what they made is whole, but not what it refers to.
        await addDerivation(looker, outer);
        await addDerivation(looker, between);
        expect((await looker.build(`${between.path}!out`)).error).toBeUndefined();
        upon.push(repeats(`by-path-${tag}`, outer, { inputSrcs: [outer.out] }));
        upon.push(repeats(`indirectly-${tag}`, outer, { inputs: [between] }));
      }
      let answered = 0;
      const asking = upon.map(async (derivation) => {
        const client = await brokered(view);
        for (const one of [outer, between, derivation])
          if (one !== between || view === "store") await addDerivation(client, one);
        const { error } = await client.build(`${derivation.path}!out`);
        answered++;
        return error;
      });
      for (const each of asking) each.catch(() => undefined);
      // They would be answered by now.
      await sleep(3000);
      expect(answered).toBe(0);

      writeFileSync(made.daemon.hostPath(mayGo), "");
      configure("");
      if (!isHeld) {
        await made.stopLinker();
        await made.startLinker();
      }
      expect(await Promise.all(asking)).toEqual(upon.map(() => undefined));
      expect((await building).error).toBeUndefined();
      for (const derivation of upon) {
        const info = await looker.must("QueryPathInfo", { path: derivation.out });
        expect(info?.references).toContainEqual(
          expect.stringMatching(new RegExp(`-gained-by-outer-${tag}$`)),
        );
      }
    },
  );
});
