/** `npm run package -- [--arch amd64|arm64]`: makes the packages of this version in dist/. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseArgs } from "node:util";
import packageJson from "../package.json" with { type: "json" };
import { buildAll } from "../scripts/build.ts";
import { type Architecture, architectureOf, PackageError } from "./architecture.ts";
import { makeDeb } from "./deb.ts";
import { type Kind, kindsHere } from "./kinds.ts";
import { makeTarball } from "./tarball.ts";
import { layOut } from "./tree.ts";

const projectRoot = join(import.meta.dirname, "..");
const dist = join(projectRoot, "dist");

/** When the sources were last changed, in seconds since 1970: SOURCE_DATE_EPOCH, else the time of the commit. */
function sourceTime(): number {
  const given = process.env.SOURCE_DATE_EPOCH;
  if (given !== undefined && /^\d{1,12}$/.test(given)) return Number(given);
  try {
    const log = ["log", "-1", "--format=%ct"];
    return Number(execFileSync("git", log, { cwd: projectRoot, stdio: ["ignore", "pipe", "ignore"] }));
  } catch {
    // Not a clone: the file that every release changes.
    return Math.floor(statSync(join(projectRoot, "package.json")).mtimeMs / 1000);
  }
}

function makePackages(architecture: Architecture, kinds: readonly Kind[]): string[] {
  const scratch = mkdtempSync(join(tmpdir(), "nix-broker-packages-"));
  const { version } = packageJson;
  const time = sourceTime();
  try {
    return kinds.map((kind) => {
      const tree = join(scratch, kind);
      if (kind === "deb") {
        const deb = join(dist, `nix-broker_${version}_${architecture.debian}.deb`);
        step("the files of the Debian package, with Node for it");
        layOut(tree, { architecture, prefix: "/usr", dist }, scratch);
        step("the Debian package (a minute, or several)");
        makeDeb(tree, deb, { architecture, version, time });
        return deb;
      }
      const archive = join(dist, `nix-broker-${version}-linux-${architecture.debian}.tar.zst`);
      step("the files of the archive, with Node for it");
      layOut(tree, { architecture, prefix: "/usr/local", dist }, scratch);
      step("the archive");
      makeTarball(tree, archive, { architecture, version, time });
      return archive;
    });
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function say(text: string): void {
  console.error(`nix-broker: ${text}`);
}

function step(what: string): void {
  say(`making ${what}`);
}

try {
  const { values } = parseArgs({ options: { arch: { type: "string", default: process.arch } } });
  const architecture = architectureOf(values.arch);
  const kinds = kindsHere(say);
  // Manual pages have a date.
  process.env.SOURCE_DATE_EPOCH = String(sourceTime());
  step("the programs");
  await buildAll(dist);
  for (const file of makePackages(architecture, kinds)) console.log(relative(projectRoot, file));
} catch (error) {
  if (!(error instanceof PackageError)) throw error;
  say(error.message);
  process.exitCode = 1;
}
