import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type AptArchive, debianArchives, machineArchives } from "./apt-sources.ts";
import { LabError, mustRun, runCommand } from "./command.ts";
import { essential, installPackages } from "./debian.ts";
import { download } from "./download.ts";
import { installHostVersion } from "./host-version.ts";
import { withLock } from "./lock.ts";
import { prepareNamedNix } from "./named-nix.ts";
import { linkClients, unpackPackages } from "./unpack.ts";
import {
  cacheFolder,
  cacheInside,
  installedVersions,
  markerName,
  nixPrograms,
  type VersionSource,
  versionNumber,
  versionSources,
} from "./versions.ts";

/** What a lab system needs besides Nix: tools for builders and for rootless daemons, a static `umount`. */
const companions = ["busybox-static", "bash", "coreutils", "findutils", "grep", "sed", "gawk", "util-linux"];

/**
 * Fetches the versions that are not in the cache yet, all at once, and says so on stderr. Versions that are
 * not available are named there with the reason, and left out: the lab continues with what it has.
 *
 * @throws LabError if in the end there is no version at all.
 */
export async function fetchVersions(): Promise<void> {
  await prepareNamedNix();
  if (missingSources().length === 0) return;
  const failures = await withLock(join(cacheFolder, "lock"), async () => {
    const missing = missingSources();
    const archives = debianArchives(machineArchives());
    if (missing.length > 0) {
      say(
        `fetching Nix ${missing.map(({ version }) => version).join(", ")} into ${cacheFolder} (about 30 s)`,
      );
    }
    const results = await Promise.allSettled(missing.map((source) => fetchVersion(source, archives)));
    return results.flatMap((result) => (result.status === "rejected" ? [messageOf(result.reason)] : []));
  });
  if (installedVersions().length === 0 && !(await installHostVersion())) {
    throw new LabError(`The lab has no Nix version to work with:\n${failures.join("\n")}`);
  }
  for (const failure of failures) say(failure);
}

/**
 * The path of a tool: the machine's own, else fetched from Debian and started through its own libraries.
 *
 * @param debianPackage the package that has it in /usr/bin
 * @throws LabError if neither has it.
 */
export async function findTool(name: string, debianPackage: string): Promise<string> {
  const own = await runCommand(["sh", "-c", 'command -v -- "$1"', "sh", name]);
  if (own.code === 0) return own.stdout.trim();
  await fetchTool(name, debianPackage);
  return join(cacheFolder, toolFolder(name), "bin", name);
}

/** Fetches a program into the cache, if it is not there, and returns its path in sandboxes. */
export async function findToolInside(name: string, debianPackage: string): Promise<string> {
  await fetchTool(name, debianPackage);
  return `${cacheInside}/${toolFolder(name)}/bin/${name}`;
}

/** What a system needs besides what it is fetched for: a shell, mounts, a network, and what Node is linked with. */
const systemCompanions = ["bash", "coreutils", "util-linux", "mount", "iproute2", "libstdc++6"];

/**
 * The folder of a whole system out of Debian packages, for programs that do not work without one.
 *
 * @throws LabError if one of the packages is not available.
 */
export async function findSystem(name: string, packages: readonly string[]): Promise<string> {
  const folder = join(cacheFolder, `system-${name}`);
  await fetchOnce(folder, name, [...packages, ...systemCompanions], async () => {});
  return join(folder, "root");
}

/**
 * The folder of a Debian system in which apt and systemd work: its packages are configured, by their own scripts.
 *
 * @throws LabError if one of the packages is not available.
 */
export async function findDebian(suite: string, packages: readonly string[]): Promise<string> {
  const folder = join(cacheFolder, ["debian", suite, ...packages].join("-"));
  await fetchOnce(folder, `Debian ${suite}`, [...essential, ...packages], async () => {}, {
    suites: [suite],
    unpack: installPackages,
  });
  return join(folder, "root");
}

function toolFolder(name: string): string {
  return `tool-${name}`;
}

async function fetchTool(name: string, debianPackage: string): Promise<void> {
  await fetchOnce(join(cacheFolder, toolFolder(name)), name, [debianPackage], async (folder) => {
    linkClients(folder, [name]);
  });
}

interface FetchOptions {
  readonly suites?: readonly string[];
  readonly unpack?: typeof unpackPackages;
}

/** Fetches packages, of Debian's stable suite if no other is named, into a folder of the cache, unless it is there. */
async function fetchOnce(
  folder: string,
  name: string,
  packages: readonly string[],
  finish: (unfinished: string) => Promise<void>,
  { suites = ["stable"], unpack = unpackPackages }: FetchOptions = {},
): Promise<void> {
  await withLock(join(cacheFolder, "lock"), async () => {
    if (existsSync(folder)) return;
    say(`fetching ${name}`);
    await fetchInto(folder, suites, packages, debianArchives(machineArchives()), finish, unpack);
  });
}

function missingSources(): VersionSource[] {
  const have = new Set(installedVersions().map(({ version }) => version));
  return versionSources.filter(({ version }) => !have.has(version));
}

async function fetchVersion({ version, suites }: VersionSource, archives: AptArchive[]): Promise<void> {
  const folder = join(cacheFolder, version);
  try {
    await fetchInto(folder, suites, [`nix-bin=${version}.*`, ...companions], archives, async (unfinished) => {
      linkClients(unfinished, nixPrograms);
      const { stdout } = await mustRun([join(unfinished, "bin", "nix"), "--version"], {
        // Nix wants a home that belongs to the user.
        env: { HOME: unfinished },
      });
      const fullVersion = versionNumber(stdout);
      writeFileSync(join(unfinished, markerName), JSON.stringify({ fullVersion }));
      say(`Nix ${fullVersion} is ready`);
    });
  } catch (error) {
    throw new LabError(`Nix ${version} cannot be had: ${messageOf(error)}`);
  }
}

/**
 * Downloads packages with their dependencies from the first suite and archive that has them, and unpacks them
 * below `folder`/root. The folder appears, complete, in one step.
 */
async function fetchInto(
  folder: string,
  suites: readonly string[],
  packages: readonly string[],
  archives: readonly AptArchive[],
  finish: (unfinished: string) => Promise<void>,
  unpack = unpackPackages,
): Promise<void> {
  if (archives.length === 0) {
    throw new LabError("the apt sources of this machine (/etc/apt) name no archive of Debian");
  }
  removeUnfinished(folder);
  const reasons: string[] = [];
  for (const suite of suites) {
    for (const archive of archives) {
      // A name of this process: an apt that outlived an interrupted fetch may still write to another one.
      const unfinished = `${folder}${unfinishedInfix}${process.pid}`;
      mkdirSync(unfinished, { recursive: true });
      try {
        const downloads = await download(join(unfinished, "apt"), archive, suite, packages);
        await unpack(downloads, join(unfinished, "root"), suite !== "bullseye");
        rmSync(join(unfinished, "apt"), { recursive: true });
        await finish(unfinished);
        renameSync(unfinished, folder);
        return;
      } catch (error) {
        rmSync(unfinished, { recursive: true, force: true });
        reasons.push(`suite ${suite}: ${messageOf(error)}`);
      }
    }
  }
  throw new LabError(reasons.join("\n"));
}

const unfinishedInfix = ".unfinished-";

/** Removes what interrupted fetches have left; called under the lock. */
function removeUnfinished(folder: string): void {
  for (const name of readdirSync(dirname(folder))) {
    if (!name.startsWith(`${basename(folder)}${unfinishedInfix}`)) continue;
    rmSync(join(dirname(folder), name), { recursive: true, force: true });
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function say(message: string): void {
  process.stderr.write(`lab: ${message}\n`);
}
