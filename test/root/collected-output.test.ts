/** An output of a build whose worker is gone may be collected at any time: while its references are registered, it is not. */
import { mkdirSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { program } from "../../lab/program.ts";
import { printSandboxRecord } from "../../src/contract/sandbox-record.ts";
import { BrokeredLab } from "./brokered-lab.ts";
import { recordOf } from "./records.ts";

const id = "c".repeat(32);
/** Collects garbage before each of the two commands that registering takes. */
const collecting = `#!/bin/sh
env -u NIX_REMOTE nix-store --gc >/dev/null 2>&1 || exit 1
exec nix-store "$@"
`;

describe.each(lab.versions)("the collector runs while references are registered [daemon %s]", (version) => {
  let brokered: BrokeredLab;
  beforeAll(async () => {
    brokered = await BrokeredLab.start(version, { hooks: false, rootConfig: "nix_store=/tmp/nix-store\n" });
    writeFileSync(brokered.daemon.hostPath("/tmp/nix-store"), collecting, { mode: 0o755 });
    mkdirSync(brokered.roots(""), { recursive: true });
  });
  afterAll(() => brokered?.stop());

  /** Leaves a build that is over, whose output mentions a gained path, as a machine that restarted does. */
  async function leave(): Promise<{ inner: string; out: string }> {
    writeFileSync(brokered.daemon.hostPath("/tmp/inner"), "inner\n");
    const inner = await brokered.add("/tmp/inner");
    // As a text of which Nix knows nothing.
    const text = inner.split("").join("@");
    const { out } = await brokered.daemon.build(
      sandboxScript(`echo ${text} | tr -d @ > $out`, { name: "mentions" }),
    );
    const drv = await brokered.mustRun(["nix-store", "-q", "--deriver", out]);
    const record = printSandboxRecord(recordOf(id, drv, { outputs: { out } }));
    writeFileSync(`${brokered.roots(id)}.json`, record, { mode: 0o600 });
    const link = `/nix/var/nix/gcroots/nix-broker/${id}`;
    await brokered.mustRun(["sh", "-c", `mkdir -p ${link} && ln -sfn ${inner} ${link}/`]);
    return { inner, out };
  }
  const settle = () => brokered.daemon.run([BrokeredLab.node, program.root, "settle", id]);

  test("G6: an output that nobody keeps gets its references, and stays whole", async () => {
    const { inner, out } = await leave();
    expect(await settle()).toMatchObject({ code: 0, stderr: "" });
    expect(await brokered.references(out)).toEqual([inner]);
    await brokered.mustRun(["nix-store", "--verify-path", out]);
  });

  test("an output that was collected before is nothing to complain about", async () => {
    const { out } = await leave();
    await brokered.mustRun(["nix-store", "--gc"]);
    expect((await brokered.daemon.run(["nix-store", "--check-validity", out])).code).not.toBe(0);
    expect(await settle()).toMatchObject({ code: 0, stderr: "" });
    expect((await brokered.daemon.run(["nix-store", "--check-validity", out])).code).not.toBe(0);
  });
});
