/** Debian systems with a real systemd and Debian's own Nix, `nix-setup-systemd`, for tests that install packages. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe } from "vitest";
import { shellQuote } from "../../lab/command.ts";
import { LabError, lab } from "../../lab/lab.ts";
import { enterSystem, Systemd } from "./init.ts";

const suites = ["trixie", "sid"] as const;
export type Suite = (typeof suites)[number];

/** Where such a system sees the folder that it was started with. */
export const packageFolder = "/packages";

/** Starts a command as from a console of root's, and not with the environment of the tests. */
export const asRoot = [
  "/usr/bin/env",
  "-i",
  "-C",
  "/",
  "PATH=/usr/sbin:/usr/bin",
  "HOME=/root",
  "LC_ALL=C",
  "DEBIAN_FRONTEND=noninteractive",
];

/** The folder of a system with these packages; where they cannot be had undefined, with the reason on stderr. */
export async function debianWith(suite: Suite, packages: readonly string[]): Promise<string | undefined> {
  try {
    return await lab.debian(suite, packages);
  } catch (error) {
    if (!(error instanceof LabError)) throw error;
    process.stderr.write(`Tests on Debian ${suite} are skipped: ${error.message}\n`);
    return undefined;
  }
}

const roots = new Map<Suite, string>();
for (const suite of suites) {
  const root = await debianWith(suite, ["nix-setup-systemd", "bubblewrap"]);
  if (root !== undefined) roots.set(suite, root);
}

/** Describes tests for each suite. Where Debian's packages cannot be had they are skipped, with the reason on stderr. */
export function describeEachDebian(
  name: string,
  wanted: readonly Suite[],
  tests: (suite: Suite) => void,
): void {
  for (const suite of wanted)
    describe.skipIf(!roots.has(suite))(`${name} [Debian ${suite}]`, () => tests(suite));
}

/** @param packages a folder of this machine that it sees */
export function startDebian(suite: Suite, packages: string): Promise<Systemd> {
  return Systemd.boot((folder) => startScript(folder, suite, packages));
}

function startScript(folder: string, suite: Suite, packages: string): string {
  const system = roots.get(suite);
  if (system === undefined) throw new LabError(`There is no Debian ${suite}.`);
  const root = join(folder, "root");
  const memory = join(folder, "memory");
  for (const path of [root, memory]) mkdirSync(path);
  const quoted = shellQuote(memory);
  const at = (path: string): string => shellQuote(join(root, path));
  return [
    "set -e",
    "mount --make-rprivate /",
    // An overlay cannot be on another, which the machine's root may be. Nor would Nix's store be at home on one.
    `mount -t tmpfs tmpfs ${quoted}`,
    `mkdir ${quoted}/upper ${quoted}/work ${quoted}/nix`,
    `mount -t overlay overlay -o lowerdir=${shellQuote(system)},upperdir=${quoted}/upper,workdir=${quoted}/work ${at("/")}`,
    `mkdir -p ${at("nix")} ${at("old")} ${at(packageFolder)}`,
    `mount --bind ${quoted}/nix ${at("nix")}`,
    `mount --bind ${shellQuote(packages)} ${at(packageFolder)}`,
    `tr -d - < /proc/sys/kernel/random/uuid > ${at("etc/machine-id")}`,
    ...enterSystem(root, "multi-user.target"),
  ].join("\n");
}
