/** Whose inner build a build is: its rights and quotas are its asker's, and nobody else's (docs/recursive-nix.md). */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { parseSandboxRecord } from "../../src/contract/sandbox-record.ts";
import { addDerivation, makeDerivation } from "../attack/derivations.ts";
import { innerDerivation, outer, writeFile } from "./scripts.ts";

const folder = "/var/lib/nix-broker/service/s";
/** A jail that may ask for one build in all; sandboxes of builds may ask for content-addressed ones. */
const serviceConfig = `
[profiles.poor]
extends = "build"
limits = { builds = 1 }
[[listen]]
path = "${folder}/poor"
profile = "poor"
view = "empty"
allow_uids = ["*"]
[[listen]]
path = "${folder}/rich"
profile = "build"
view = "empty"
allow_uids = ["*"]
[profiles.floating]
extends = "build"
content_addressed = true
[hooks]
profile = "floating"
`;

describe.each(lab.versions)("families of sandboxes [daemon %s]", (version) => {
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, {
      serviceConfig,
      sandboxPaths: ["/signal=/tmp/signal"],
      ...(version === "2.3" ? {} : { config: "experimental-features = ca-derivations\n" }),
      buildUsers: 20,
    });
    await made.daemon.run(["sh", "-c", "mkdir /tmp/signal; chmod 777 /tmp/signal"]);
  });
  afterAll(() => made?.stop());
  const signal = (name: string) => made.daemon.hostPath(`/tmp/signal/${name}`);

  test("G8: a stranger's build stays an outer one, even if a sandbox asks for it, too", async () => {
    const first = makeDerivation({
      name: "first",
      script: "touch /signal/at; until [ -e /signal/go ]; do sleep 0.1; done; echo > $out",
    });
    const strangers = makeDerivation({
      name: "strangers",
      inputs: [first],
      script: `set -e; export HOME=$PWD/home; mkdir $HOME
${writeFile("inner.nix", innerDerivation("inner", "echo inner > $out"))}
nix-build --no-out-link inner.nix > $out`,
      env: { PATH: `/lab/${version}/bin:/usr/bin:/bin`, requiredSystemFeatures: "nix-broker" },
    });
    const attacker = await RawClient.connect(made.daemon.hostPath(`${folder}/poor`));
    await addDerivation(attacker, first);
    const path = await addDerivation(attacker, strangers);

    const building = made.daemon.run(["nix-store", "-r", path], { user: "alice" });
    // Alice's daemon has the locks; the attacker, who comes second, waits for them.
    await until(() => existsSync(signal("at")));
    await attacker.send("BuildPaths", { paths: [`${path}!out`], mode: 0 });
    await until(async () =>
      (await made.audit()).some(({ kind, op }) => kind === "intent" && op === "BuildPaths"),
    );
    await made.daemon.run(["touch", "/tmp/signal/go"]);
    const { code, stderr } = await building;
    expect(stderr).not.toContain("limits.builds");
    expect(code).toBe(0);
    attacker.close();
    const begun = (await made.audit()).filter(({ kind, op }) => kind === "sandbox" && op === "begin");
    const reasons = begun
      .filter(({ detail }) => detail?.depth === 1)
      .flatMap(({ reason = "" }) => (reason === "static socket" ? [] : [reason]));
    expect(reasons).toEqual(["outer build"]);
  });

  test("G8: a local user who reads a sandbox's mark and makes it a root of theirs does not join its family", async () => {
    const inner = (name: string) =>
      makeDerivation({
        name,
        script: `touch /signal/${name}; until [ -e /signal/go-${name} ]; do sleep 0.1; done; echo > $out`,
        env: { requiredSystemFeatures: "nix-broker" },
      });
    const appears = async (name: string) => {
      while (!existsSync(signal(name))) await sleep(20);
    };
    const begun = async (client: RawClient, path: string) => {
      expect((await client.build(`${path}!out`)).error).toBeUndefined();
    };
    const victim = await RawClient.connect(made.daemon.hostPath(`${folder}/rich`));
    const victims = await addDerivation(victim, inner("victims"));
    const victimBuilds = begun(victim, victims);
    await Promise.race([victimBuilds, appears("victims")]);

    const alice = await RawClient.connect(made.daemon.socket);
    const roots = await alice.must("FindRoots", undefined);
    const marks = roots.map(({ target }) => target).filter((path) => path.endsWith("-nix-broker-asker"));
    expect(marks.length).toBeGreaterThan(0);
    for (const path of new Set(marks)) await alice.must("AddTempRoot", { path });
    const stolen = await addDerivation(alice, inner("stolen"));
    const aliceBuilds = begun(alice, stolen);
    await Promise.race([aliceBuilds, appears("stolen")]);
    const askers = new Map<string, string>();
    for (const id of readdirSync(made.daemon.hostPath("/run/nix-broker/sandboxes"))) {
      // It is being removed.
      if (id.startsWith(".")) continue;
      const file = made.daemon.hostPath(`/run/nix-broker/sandboxes/${id}/sandbox.json`);
      const { drvPath, asker } = parseSandboxRecord(readFileSync(file, "utf8"));
      askers.set(drvPath, asker);
    }
    expect(marks).toContain(askers.get(victims));
    expect(askers.get(stolen)).toBe("");

    await made.daemon.run(["touch", "/tmp/signal/go-victims", "/tmp/signal/go-stolen"]);
    await Promise.all([victimBuilds, aliceBuilds]);
    for (const client of [alice, victim]) client.close();
  });

  if (version !== "2.3")
    test("G9: an inner build that opts in and needs a content-addressed one is refused, with the reason", async () => {
      const floating = innerDerivation("floating", "echo > $out", {
        __contentAddressed: "true",
        outputHashMode: '"recursive"',
        outputHashAlgo: '"sha256"',
      });
      const deferred = innerDerivation("deferred", "echo $floating > $out", {
        floating,
        requiredSystemFeatures: '[ "nix-broker" ]',
      });
      const { code, log } = await made.daemon.tryBuild(
        outer(`export NIX_CONFIG="extra-experimental-features = ca-derivations"
${writeFile("deferred.nix", deferred)}
ln -s "$(nix-build --no-out-link deferred.nix)" $out`),
      );
      expect(code).not.toBe(0);
      expect(log).toMatch(
        /derivation '\S+-deferred\.drv' may not be built here: it asks for nix-broker, and its/,
      );
    });
});
