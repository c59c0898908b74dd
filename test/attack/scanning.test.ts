/** AddToStoreScanning, which the broker serves itself for any upstream. */
import { expect, test } from "vitest";
import { writeNar } from "../store/nar.ts";
import { describeAttack } from "./suite.ts";

describeAttack("contents that the broker scans for references", ({ minor, bare, brokered }) => {
  // The feature is told of to clients of 1.38; those that upstream serves with less are offered less.
  if (minor < 38) {
    test("are not offered by a daemon of an older protocol", async () => {
      expect((await brokered()).table.features.has("add-to-store-scanning")).toBe(false);
    });
    return;
  }

  test("G2: the references found are the paths of the view that the contents mention, wherever chunks are cut", async () => {
    const client = await brokered();
    const { path: mentioned } = await client.addText("mentioned", "mentioned");
    const { path: other } = await client.addText("other", "other");
    const { path: strangers } = await (await bare()).addText("strangers-own", "a stranger's");
    const contents = Buffer.from(`${"x".repeat(70_000)}${mentioned} ${strangers}`);
    const nar = writeNar({ type: "regular", contents });
    const pieces = [nar.subarray(0, 70_100), nar.subarray(70_100, 70_120), nar.subarray(70_120)];
    const { path, references, deriver } = await client.must(
      "AddToStoreScanning",
      { name: "scanned", method: "fixed:r:sha256" },
      pieces,
    );
    expect({ references, deriver }).toEqual({ references: [mentioned], deriver: "" });
    expect(await client.must("QueryReferrers", { path: mentioned })).toContain(path);
    expect(await client.must("QueryReferrers", { path: other })).toEqual([]);
    // What upstream holds is what the client was told.
    const direct = await (await bare()).must("QueryPathInfo", { path });
    expect(direct?.references).toEqual([mentioned]);
    expect((await client.nar(path)).equals(nar)).toBe(true);
  });

  test("G1: a client cannot find out by mentioning another sandbox's path whether it exists", async () => {
    const client = await brokered();
    const { path: strangers } = await (await bare()).addText("strangers-other", "a stranger's other");
    const nowhere = strangers.replace(/\/store\/.{32}/, `/store/${"1".repeat(32)}`);
    for (const path of [strangers, nowhere]) {
      const nar = writeNar({ type: "regular", contents: Buffer.from(path) });
      const added = await client.must("AddToStoreScanning", { name: "blind", method: "fixed:r:sha256" }, [
        nar,
      ]);
      expect(added.references).toEqual([]);
    }
  });

  test("a flat file that mentions a path is refused, and so is a derivation; the next request works", async () => {
    const client = await brokered();
    const { path } = await client.addText("mentioned", "mentioned");
    const flat = await client.ask("AddToStoreScanning", { name: "flat", method: "fixed:sha256" }, [
      Buffer.from(path),
    ]);
    expect(flat.error).toContain("which a path with the method 'fixed:sha256' cannot");
    const drv = await client.ask("AddToStoreScanning", { name: "x.drv", method: "text:sha256" }, [
      Buffer.from("x"),
    ]);
    expect(drv.error).toContain("has the name of a derivation");
    const weak = await client.ask("AddToStoreScanning", { name: "x", method: "fixed:r:sha1" }, [
      writeNar({ type: "regular", contents: Buffer.from("x") }),
    ]);
    expect(weak.error).toContain("is not allowed; these are");
    expect((await client.addText("after", "after")).error).toBeUndefined();
  });
});
