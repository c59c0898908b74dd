/**
 * What the host has built or was given must not show in what is answered of things that the client made itself: how upstream
 * came by a path, and whether somebody has built a content-addressed derivation.
 */
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { nixSystem } from "../../lab/expression.ts";
import { lab } from "../../lab/lab.ts";
import { encodeBase32 } from "../../src/store/base32.ts";
import { addContents } from "./contents.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

describeAttack("paths that the host had without a content address", ({ bare, brokered, daemon }) => {
  /** Exports and deletes a path, and takes it back: then it has no content address. */
  const forget = async (path: string): Promise<void> => {
    const done = await daemon().run(
      [
        "bash",
        "-e",
        "-c",
        'nix-store --export "$1" > /tmp/x; nix-store --delete "$1"; nix-store --import < /tmp/x',
        "-",
        path,
      ],
      { env: { NIX_REMOTE: "" } },
    );
    expect(done.code, done.stderr).toBe(0);
  };

  for (const how of ["nar", "flat"] as const)
    test(`G1: contents that the client adds (${how}) are shown with their content address, however the host got them`, async () => {
      const addresses: string[] = [];
      for (const contents of ["imported by the host", "unknown to this host"]) {
        if (contents.startsWith("imported")) {
          const owner = await bare();
          const { path } = await addContents(owner, how, "given", Buffer.from(contents));
          owner.close();
          await forget(path);
        }
        const client = await brokered();
        const { path, error } = await addContents(client, how, "given", Buffer.from(contents));
        expect(error).toBeUndefined();
        const info = await client.must("QueryPathInfo", { path });
        const digest = how === "flat" ? createHash("sha256").update(contents).digest() : undefined;
        if (digest) expect(info?.contentAddress).toBe(`fixed:sha256:${encodeBase32(digest)}`);
        addresses.push(info?.contentAddress.replace(/[0-9a-z]{52}$/, "H") ?? "");
      }
      expect(addresses[0]).toBe(addresses[1]);
      expect(addresses[0]).toBe(how === "flat" ? "fixed:sha256:H" : "fixed:r:sha256:H");
    });

  test("G1: a text and the output of a fixed-output derivation are shown with their content address, too", async () => {
    const owner = await bare();
    const text = await owner.addText("text", "a text that was imported");
    const sha256 = createHash("sha256").update("fetched").digest("hex");
    const made = makeDerivation({ name: "fetched", script: "printf fetched > $out", sha256 });
    const flat = await addContents(owner, "flat", "fetched", Buffer.from("fetched"));
    expect(flat.path).toBe(made.out);
    owner.close();
    await forget(text.path);
    await forget(made.out);
    const client = await brokered();
    const added = await client.addText("text", "a text that was imported");
    const info = await client.must("QueryPathInfo", { path: added.path });
    expect(info?.contentAddress).toMatch(/^text:sha256:[0-9a-z]{52}$/);
    await addDerivation(client, made);
    expect((await client.build(`${made.path}!out`)).error).toBeUndefined();
    const built = await client.must("QueryPathInfo", { path: made.out });
    expect(built?.contentAddress).toMatch(/^fixed:sha256:[0-9a-z]{52}$/);
  });
});

describeAttack(
  "realisations",
  ({ bare, brokered }) => {
    /** A floating derivation as text, and the hash by which its outputs are named up to 2.33. */
    const floating = (name: string): { text: Buffer; hash: string } => {
      const of = (out: string): string =>
        `Derive([("out","","r:sha256","")],[],[],"${nixSystem}","/bin/sh",["-c","echo the answer > $out"],[("__contentAddressed","1"),("builder","/bin/sh"),("name","${name}"),("out","${out}"),("outputHashAlgo","sha256"),("outputHashMode","recursive"),("system","${nixSystem}")])`;
      return {
        text: Buffer.from(of("/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9")),
        hash: createHash("sha256").update(of("")).digest("hex"),
      };
    };

    test("G1: a client cannot find out whether somebody has built a derivation that it never added", async () => {
      const answers: unknown[] = [];
      for (const name of ["built-by-host", "built-by-none"]) {
        const { text, hash } = floating(name);
        if (name === "built-by-host") {
          const owner = await bare();
          const { path } = await owner.addText(`${name}.drv`, text.toString("latin1"));
          expect((await owner.build(`${path}!out`)).error).toBeUndefined();
        }
        const client = await brokered();
        // The output that it guesses is in its view.
        expect((await addContents(client, "nar", name, Buffer.from("the answer\n"))).error).toBeUndefined();
        answers.push((await client.ask("QueryRealisation", { output: `sha256:${hash}!out` })).reply);
      }
      expect(answers[0]).toEqual(answers[1]);
    });

    test("what it built itself, a client is told", async () => {
      const { text, hash } = floating("built-by-itself");
      const client = await brokered();
      const { path } = await client.addText("built-by-itself.drv", text.toString("latin1"));
      expect((await client.build(`${path}!out`)).error).toBeUndefined();
      const told = await client.ask("QueryRealisation", { output: `sha256:${hash}!out` });
      expect(JSON.stringify(told.reply)).toContain("-built-by-itself");
    });
  },
  {
    versions: () => lab.versions.filter((version) => version !== "2.3"),
    daemon: { config: "experimental-features = ca-derivations nix-command\n" },
    broker: {
      config: '[profiles.floating]\nextends = "build"\ncontent_addressed = true\n',
      profile: "floating",
    },
  },
);
