/**
 * Daemons do not look at contents that come for a path which they have: whoever knows the hash of a stranger's path, for
 * hashes are public, would only have to name it.
 */

import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import { STORE_DIR } from "../../lab/raw-client.ts";
import { NEWEST_MINOR } from "../../src/protocol/version.ts";
import { contentAddressPath, printContentAddress } from "../../src/store/content-address.ts";
import { writeNar } from "../store/nar.ts";
import { addContents, items, type NarInfo, narInfo } from "./contents.ts";
import { describeAttack } from "./suite.ts";

function narOf(text: string): Buffer {
  return writeNar({ type: "regular", contents: Buffer.from(text) });
}

/** The same, addressed by the contents of the file. */
function flatInfo(name: string, text: string): NarInfo {
  const digest = createHash("sha256").update(text).digest();
  const address = { method: "flat", hash: { algorithm: "sha256", digest } } as const;
  const path = contentAddressPath(STORE_DIR, name, address, []);
  return { ...narInfo(name, narOf(text)), path, contentAddress: printContentAddress(address) };
}

describeAttack("claimed contents", ({ bare, brokered, minor }) => {
  const SECRET = "the stranger's secret";
  const OTHER = "not what they have it";
  const MADE_UP = "nobody has such texts";
  const hoard = async (name: string, how: "nar" | "flat"): Promise<void> => {
    expect((await addContents(await bare(), how, name, Buffer.from(SECRET))).error).toBeUndefined();
  };

  describe.each([21, 22, 23, NEWEST_MINOR].filter((asked) => asked <= minor))("by protocol 1.%i", (asked) => {
    for (const how of ["nar", "flat"] as const)
      test(`G1: a path enters the view by AddToStoreNar only if its contents were sent (${how})`, async () => {
        const client = await brokered({ minor: asked });
        const name = `strangers-${how}-${asked}`;
        await hoard(name, how);
        const ask = (info: NarInfo, text: string) =>
          client.ask("AddToStoreNar", { ...info, repair: false, dontCheckSigs: false }, [narOf(text)]);
        const infoOf = how === "flat" ? flatInfo : (_: string, text: string) => narInfo(name, narOf(text));
        const there = infoOf(name, SECRET);
        const absent = infoOf(name, MADE_UP);
        const { error } = await ask(there, OTHER);
        expect(error).toBeDefined();
        expect((await ask(absent, OTHER)).error).toBe(error);
        expect(await client.must("IsValidPath", { path: there.path })).toBe(false);
        // Whoever has them gets it.
        expect((await ask(there, SECRET)).error).toBeUndefined();
        expect(await client.must("IsValidPath", { path: there.path })).toBe(true);
      });
  });

  if (minor >= 32)
    test("G1: the same by AddMultipleToStore", async () => {
      const client = await brokered();
      const name = "strangers-many";
      await hoard(name, "nar");
      const there = narInfo(name, narOf(SECRET));
      const ask = (info: NarInfo, text: string) =>
        client.ask("AddMultipleToStore", { repair: false, dontCheckSigs: false }, [
          items(client, [{ info, nar: narOf(text) }]),
        ]);
      const { error } = await ask(there, OTHER);
      expect(error).toBeDefined();
      expect((await ask(narInfo(name, narOf(MADE_UP)), OTHER)).error).toBe(error);
    });
});
