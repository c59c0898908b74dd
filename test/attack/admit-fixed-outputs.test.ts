/** `admit_fixed_outputs`: contents that upstream has enter the view when a client knows their path. */
import { createHash } from "node:crypto";
import { beforeAll, expect, test } from "vitest";
import { addContents } from "./contents.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { describeAttack } from "./suite.ts";

describeAttack(
  "fixed outputs that a profile admits",
  ({ bare, brokered }) => {
    const contents = Buffer.from("fetched by somebody else");
    const sha256 = createHash("sha256").update(contents).digest("hex");
    let fetched: string;
    let text: string;
    beforeAll(async () => {
      const other = await bare();
      fetched = (await addContents(other, "flat", "fetched", contents)).path;
      text = (await other.addText("their-text", "a text of somebody's")).path;
    });

    test("one is valid, readable and in the view once it is named", async () => {
      const client = await brokered();
      expect(await client.must("IsValidPath", { path: fetched })).toBe(true);
      expect((await client.nar(fetched)).toString("latin1")).toContain("fetched by somebody else");
      expect(await client.must("QueryAllValidPaths", undefined)).toContain(fetched);
      expect((await client.must("QueryPathInfo", { path: fetched }))?.deriver).toBe("");
    });

    test("its derivation may be built without fetching, and another may not", async () => {
      const client = await brokered();
      const known = makeDerivation({ name: "fetched", script: "exit 1", sha256 });
      expect(known.out).toBe(fetched);
      await addDerivation(client, known);
      expect((await client.build(`${known.path}!out`)).error).toBeUndefined();
      const unknown = makeDerivation({ name: "fetched", script: "echo > $out", sha256: "0".repeat(64) });
      await addDerivation(client, unknown);
      expect((await client.build(`${unknown.path}!out`)).error).toContain(
        "allows fixed-output derivations only if the output is already in the view",
      );
    });

    test("G1: naming any other path does not add it to the view", async () => {
      const client = await brokered();
      const other = await bare();
      const made = makeDerivation({ name: "theirs", script: "echo theirs > $out" });
      await addDerivation(other, made);
      expect((await other.build(`${made.path}!out`)).error).toBeUndefined();
      // A text follows from its contents too, but is no fixed output; names need be no paths.
      for (const path of [
        text,
        made.path,
        made.out,
        fetched.replace(/\/store\/.{32}/, `/store/${"1".repeat(32)}`),
      ])
        expect(await client.must("IsValidPath", { path }), path).toBe(false);
      expect(await client.must("QueryPathFromHashPart", { hashPart: text.slice(11, 43) })).toBe("");
    });
  },
  {
    broker: {
      profile: "admitting",
      config:
        '[profiles.admitting]\nextends = "build"\nfixed_outputs = "known"\nadmit_fixed_outputs = true\n',
    },
  },
);

describeAttack("fixed outputs that no profile admits", ({ bare, brokered }) => {
  test("G1: without admit_fixed_outputs naming a fixed output does not add it to the view", async () => {
    const { path } = await addContents(await bare(), "flat", "fetched", Buffer.from("theirs"));
    expect(await (await brokered()).must("IsValidPath", { path })).toBe(false);
  });
});
