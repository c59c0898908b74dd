/** What the service sees of a sandbox's folder while root removes it: at no moment one that is whole and may not be read. */
import * as fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test, vi } from "vitest";

const modesWhenTaken: number[] = [];
vi.mock("node:fs", async (original) => {
  const real = await original<typeof fs>();
  return {
    ...real,
    fchownSync(fd: number, uid: number, gid: number) {
      modesWhenTaken.push(real.fstatSync(fd).mode & 0o777);
      real.fchownSync(fd, uid, gid);
    },
  };
});

// Files before this one, in the same process, may have loaded it with the real file system.
vi.resetModules();
const { removeTree } = await import("../../src/root/remove-tree.ts");
const { Turns } = await import("../../src/root/turns.ts");

test("its mode says that it is being removed before its group is changed", async () => {
  const folder = fs.mkdtempSync(join(tmpdir(), "nix-broker-removed-"));
  fs.chmodSync(folder, 0o750);
  fs.writeFileSync(join(folder, "sandbox.json"), "{}");
  await removeTree(folder, new Turns());
  expect(modesWhenTaken).toEqual([0o700]);
  expect(fs.existsSync(folder)).toBe(false);
});
