/** Which packages can be made here. */
import { spawnSync } from "node:child_process";
import { PackageError } from "./architecture.ts";

export type Kind = "deb" | "archive";

const kinds = [
  { kind: "deb", what: "Debian package", program: "dpkg-deb" },
  { kind: "archive", what: "archive", program: "zstd" },
] as const;

/**
 * @param tell is told what is left out, and why
 * @throws PackageError when nothing can be made
 */
export function kindsHere(tell: (text: string) => void): Kind[] {
  const missing = kinds.filter(({ program }) => !isThere(program));
  if (missing.length === kinds.length)
    throw new PackageError("No package can be made here: one needs dpkg-deb, the other zstd.");
  for (const { what, program } of missing) tell(`no ${what} is made: ${program} is not installed`);
  return kinds.filter((each) => !missing.includes(each)).map(({ kind }) => kind);
}

function isThere(program: string): boolean {
  return spawnSync(program, ["--version"], { stdio: "ignore" }).error === undefined;
}
