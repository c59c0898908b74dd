/** What a client or an upstream could make of the broker's own rights. */
import { describe, expect, test } from "vitest";
import { startBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { RawClient } from "../../lab/raw-client.ts";
import type { RequestOf } from "../../src/protocol/operations.ts";
import { plainOptions } from "./client-options.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

/** Every setting that a client could wish for. */
const wishes = {
  ...plainOptions,
  keepFailed: 1,
  tryFallback: 1,
  buildCores: 63,
  useSubstitutes: 1,
  overrides: new Map([
    ["cores", "63"],
    ["keep-failed", "true"],
    ["max-jobs", "1"],
    ["sandbox", "false"],
    ["substituters", "http://localhost:1"],
    ["trusted-users", "*"],
  ]),
};

describeAttack("settings", ({ both, broker }) => {
  test("G4: settings of a client do not reach upstream", async () => {
    for (const [i, client] of (await both()).entries()) {
      await client.must("SetOptions", wishes);
      const made = makeDerivation({ name: `cores-${i}`, script: "echo cores $NIX_BUILD_CORES > $out" });
      await addDerivation(client, made);
      const { error } = await client.build(`${made.path}!out`);
      expect(error).toBeUndefined();
      const contents = (await client.nar(made.out)).toString("latin1");
      // The bare daemon takes the number of cores from its client, the broker's from its own settings.
      expect(contents).toContain(i === 0 ? "cores 63" : "cores 1\n");
    }
    const [row] = await broker().audit("--op", "SetOptions");
    expect(row?.detail?.settingsDropped).toEqual(
      expect.arrayContaining(["sandbox", "substituters", "trusted-users", "max-jobs"]),
    );
  });

  test("G4: operations that only an administrator may use are denied and never reach upstream", async () => {
    const [, client] = await both();
    const { path } = await client.addText("mine", "mine");
    const garbage = {
      action: 2,
      paths: client.table.features.has("delete-dead-specific-referrers") ? { tag: 1, value: undefined } : [],
      ignoreLiveness: 1,
      maxFreed: 2n ** 63n,
      obsolete1: 0,
      obsolete2: 0,
      obsolete3: 0,
    } as RequestOf<"CollectGarbage">;
    const answers = [
      await client.ask("CollectGarbage", garbage),
      await client.ask("OptimiseStore", undefined),
      await client.ask("VerifyStore", { checkContents: true, repair: true }),
      await client.ask("AddSignatures", { path, signatures: ["a:b"] }),
    ];
    for (const { error } of answers) expect(error).toContain("is not allowed here");
    expect(await client.must("AddIndirectRoot", { link: "/tmp/root" })).toBe(1);
    expect(await client.must("FindRoots", undefined)).toEqual([]);
    const rows = await broker().audit();
    const forwarded = rows.filter((row) => row.verdict === "forward").map((row) => row.op);
    for (const op of ["CollectGarbage", "OptimiseStore", "VerifyStore", "AddSignatures", "AddIndirectRoot"])
      expect(forwarded).not.toContain(op);
  });
});

describe.each(lab.versions)("an upstream that trusts the broker [daemon %s]", (version) => {
  async function withDaemon(work: (daemon: Daemon) => Promise<void>): Promise<void> {
    const daemon = await lab.start(version, { trustedUsers: ["nix-broker"] });
    try {
      await work(daemon);
    } finally {
      await daemon.stop();
    }
  }

  test("G4: an upstream that trusts the broker's user is refused, unless that is allowed", () =>
    withDaemon(async (daemon) => {
      const wary = await startBroker(daemon);
      await expect(RawClient.connect(wary.hostSocket)).rejects.toThrow(
        /the nix-daemon trusts the user that nix-broker runs as.*trusted-users.*allow_trusted/s,
      );
      // And no later client finds it forgotten.
      await expect(RawClient.connect(wary.hostSocket)).rejects.toThrow(/trusts the user/);
      await wary.stop();
      const content = await startBroker(daemon, { config: "[upstream]\nallow_trusted = true\n" });
      const client = await RawClient.connect(content.hostSocket);
      expect((await client.addText("fine", "fine")).error).toBeUndefined();
      client.close();
      await content.stop();
    }));

  test("G4: the service does not run as root", () =>
    withDaemon(async (daemon) => {
      await expect(startBroker(daemon, { user: "root" })).rejects.toThrow(
        /nix-broker does not run as root: start it as its own system user/,
      );
    }));
});
