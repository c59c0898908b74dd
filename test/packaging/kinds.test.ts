/** What `npm run package` makes where a tool is missing. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { PackageError } from "../../packaging/architecture.ts";
import { kindsHere } from "../../packaging/kinds.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-tools-"));
  vi.stubEnv("PATH", folder);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

/** What is made where these programs are there, and what is said of the rest. */
function made(...programs: readonly string[]): { readonly kinds: string[]; readonly said: string[] } {
  for (const program of programs) writeFileSync(join(folder, program), "#!/bin/sh\n", { mode: 0o755 });
  const said: string[] = [];
  return { kinds: kindsHere((text) => said.push(text)), said };
}

test("where all tools are there, both packages are made", () => {
  expect(made("dpkg-deb", "zstd")).toEqual({ kinds: ["deb", "archive"], said: [] });
});

test("elsewhere the other one is made", () => {
  expect(made("zstd")).toEqual({
    kinds: ["archive"],
    said: ["no Debian package is made: dpkg-deb is not installed"],
  });
});

test("without zstd, as on a new Debian, the Debian package is made", () => {
  expect(made("dpkg-deb")).toEqual({ kinds: ["deb"], said: ["no archive is made: zstd is not installed"] });
});

test("without any, that is said before anything is built", () => {
  expect(() => made()).toThrow(PackageError);
});
