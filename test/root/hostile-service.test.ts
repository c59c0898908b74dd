/** What root's programs make of the folders of a service that somebody has taken over. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { lab, nixString, sandboxScript } from "../../lab/lab.ts";
import { BrokeredLab } from "./brokered-lab.ts";

describe.each(lab.versions)("a service that was taken over [daemon %s]", (version) => {
  let brokered: BrokeredLab;
  afterEach(() => brokered?.stop());

  test("G6: removing its links loses no reference, and nothing in its folders keeps a sandbox from ending", async () => {
    brokered = await BrokeredLab.start(version);
    await brokered.startLinker();
    brokered.startStandIn();
    const add = (name: string) => {
      writeFileSync(brokered.daemon.hostPath(`/tmp/${name}`), `${name}\n`);
      return brokered.add(`/tmp/${name}`);
    };
    const first = await add("first");
    const last = await add("last");
    const building = brokered.daemon.build(
      sandboxScript(`until [ -e ${last} ]; do sleep 0.2; done; echo ${first} ${last} > $out`, {
        name: "outer",
        features: ["nix-broker"],
      }),
      { args: ["--out-link", "/tmp/result"] },
    );
    const id = await brokered.sandboxNamed("outer");
    const roots = brokered.roots(id);
    await brokered.gain(id, first);
    unlinkSync(`${roots}/${first.slice("/nix/store/".length)}`);
    await brokered.mustRun(["nix-store", "--gc"]);
    mkdirSync(`${roots}/${"deep/".repeat(100)}`, { recursive: true });
    mkdirSync(brokered.runtime(`sandboxes/${id}/socket.d/${"deep/".repeat(100)}`), { recursive: true });
    // Of the same hash part, and of none that exists.
    symlinkSync("nowhere", `${roots}/${first.slice("/nix/store/".length)}-other`);
    for (let i = 0; i < 1000; i++) symlinkSync("nowhere", `${roots}/${String(i).padStart(32, "0")}-x`);
    expect(await add("last")).toBe(last);
    await brokered.gain(id, last);

    const { out, log } = await building;
    expect(log).not.toContain("not registered yet");
    expect(await brokered.references(out)).toEqual([first, last].sort());
    expect(brokered.ended(id)).toMatchObject({ outcome: "registered" });
    expect(readdirSync(brokered.daemon.hostPath("/nix/var/nix/gcroots/nix-broker"))).toEqual([]);
    await brokered.linker.release(id);
    expect(existsSync(brokered.runtime(`sandboxes/${id}`))).toBe(false);
    expect(readdirSync(brokered.runtime("sandboxes"))).toEqual([]);
    await brokered.mustRun(["nix-store", "--gc"]);
    expect(await brokered.references(out)).toEqual([first, last].sort());
  });

  test("G6: its links add no reference to a content-addressed output, which would not be one any more", async () => {
    brokered = await BrokeredLab.start(version);
    await brokered.startLinker();
    brokered.startStandIn();
    writeFileSync(brokered.daemon.hostPath("/tmp/inner"), "inner\n");
    const inner = await brokered.add("/tmp/inner");
    const hash = createHash("sha256").update(`${inner}\n`).digest("hex");
    const building = brokered.daemon.build(
      sandboxScript(`until [ -e /nix/var/nix/daemon-socket/go ]; do sleep 0.1; done; echo ${inner} > $out`, {
        name: "fixed",
        features: ["nix-broker"],
        attributes: {
          outputHashMode: nixString("flat"),
          outputHashAlgo: nixString("sha256"),
          outputHash: nixString(hash),
        },
      }),
      { args: ["--out-link", "/tmp/result"] },
    );
    const id = await brokered.sandboxNamed("fixed");
    expect(brokered.record(id).kind).toBe("refused");
    symlinkSync(inner, `${brokered.roots(id)}/${inner.slice("/nix/store/".length)}`);
    writeFileSync(brokered.runtime(`sandboxes/${id}/socket.d/go`), "");
    const { out } = await building;
    expect(brokered.ended(id)).toMatchObject({ outcome: "registered", references: {} });
    expect(await brokered.references(out)).toEqual([]);
  });
});
