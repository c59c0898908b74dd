import { mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parseRootConfig } from "../../src/contract/root-config.ts";
import { readAskingDerivation, readDerivation } from "../../src/root/derivation-file.ts";
import { noPause } from "../../src/store/slices.ts";

const folder = mkdtempSync(join(tmpdir(), "derivation-file-"));
afterAll(() => rmSync(folder, { recursive: true }));
const config = parseRootConfig(`store_real=${folder}\n`, "test");

test("G8: a derivation that is too long is not read", async () => {
  writeFileSync(join(folder, "long.drv"), "nix-broker");
  // A file with a hole: it takes no room, but memory if it were read.
  truncateSync(join(folder, "long.drv"), 2 ** 40);
  for (const read of [readDerivation, readAskingDerivation])
    await expect(read(config, "long.drv", noPause)).rejects.toThrow(
      "long.drv has 1099511627776 bytes; more than",
    );
});

test("G8: what is no regular file is not read: it may have no end, or keep its reader waiting", async () => {
  symlinkSync("/dev/null", join(folder, "device.drv"));
  for (const read of [readDerivation, readAskingDerivation])
    await expect(read(config, "device.drv", noPause)).rejects.toThrow("device.drv is not a regular file");
});

test("G8: a derivation that does not name nix-broker is not parsed", async () => {
  writeFileSync(join(folder, "other.drv"), "not a derivation at all");
  expect(await readAskingDerivation(config, "other.drv", noPause)).toBeUndefined();
  writeFileSync(join(folder, "ours.drv"), "not a derivation, but nix-broker");
  await expect(readAskingDerivation(config, "ours.drv", noPause)).rejects.toThrow("not a derivation");
});
