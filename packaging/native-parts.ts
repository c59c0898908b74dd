/**
 * What a package needs that is made for one architecture: Node itself and the packages with native parts. Those of this machine
 * are installed already; those of another are fetched in the versions that the lock file names.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import packageLock from "../package-lock.json" with { type: "json" };
import { type Architecture, PackageError } from "./architecture.ts";

const modules = join(import.meta.dirname, "../node_modules");

interface Locked {
  readonly version?: string;
  readonly integrity?: string;
}

/** What the lock file says of an installed package. @throws PackageError when it does not name it */
function locked(name: string): Locked & { readonly version: string } {
  const packages: Readonly<Record<string, Locked>> = packageLock.packages;
  const entry = packages[`node_modules/${name}`];
  if (entry?.version === undefined) throw new PackageError(`package-lock.json does not name ${name}.`);
  return { ...entry, version: entry.version };
}

/** Fetches a package from npm's registry, in the version and with the hash of the lock file, and unpacks it. */
function fetchPackage(name: string, { version, integrity }: ReturnType<typeof locked>, target: string): void {
  const folder = mkdtempSync(join(tmpdir(), "nix-broker-package-"));
  try {
    const printed = execFileSync("npm", ["pack", "--silent", `${name}@${version}`], {
      cwd: folder,
      encoding: "utf8",
    });
    const archive = join(folder, printed.trim().split("\n").at(-1) ?? "");
    const hash = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`;
    if (integrity !== undefined && integrity !== hash)
      throw new PackageError(`${name} ${version} has not the hash that package-lock.json names.`);
    mkdirSync(target, { recursive: true });
    execFileSync("tar", ["-xzf", archive, "-C", target, "--strip-components=1"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * Copies what the bundle leaves outside into `<folder>/node_modules`, without its sources, and gives the folder that Node's
 * package is in.
 *
 * @param scratch a folder for what is fetched
 * @throws PackageError when something is not there
 */
export function addNativeParts(architecture: Architecture, folder: string, scratch: string): string {
  const target = join(folder, "node_modules");
  // Its JavaScript; the rest, and two of its scripts, are what its native part is made with.
  for (const name of globSync("{*,src/**/*}.{js,cjs,json}", { cwd: join(modules, "koffi") }))
    if (!/(cnoke|trampolines)\.cjs$/.test(name))
      cpSync(join(modules, "koffi", name), join(target, "koffi", name));
  for (const part of ["index.js", "fallback.js", "package.json"])
    cpSync(join(modules, "bufferutil", part), join(target, "bufferutil", part));
  for (const part of ["index.js", "node-gyp-build.js", "package.json"])
    cpSync(join(modules, "node-gyp-build", part), join(target, "node-gyp-build", part));
  // Where there is none, as for arm64, its own JavaScript does the same.
  const prebuilt = join("bufferutil/prebuilds", `linux-${architecture.node}`);
  if (existsSync(join(modules, prebuilt)))
    cpSync(join(modules, prebuilt), join(target, prebuilt), { recursive: true });

  const koffi = `@koromix/koffi-linux-${architecture.node}`;
  const node = `node-linux-${architecture.node}`;
  if (architecture.node === process.arch) {
    cpSync(join(modules, koffi), join(target, koffi), { recursive: true });
  } else {
    fetchPackage(koffi, locked(koffi), join(target, koffi));
    if (!existsSync(join(scratch, node)))
      fetchPackage(node, { version: locked("node").version }, join(scratch, node));
  }
  // It has one for each C library; Node's own is the GNU one.
  rmSync(join(target, koffi, `musl_${architecture.node}`), { recursive: true, force: true });
  const installed = [join(modules, "node/node_modules", node), join(modules, node)].find((place) =>
    existsSync(join(place, "bin/node")),
  );
  const nodePackage = architecture.node === process.arch ? installed : join(scratch, node);
  if (nodePackage === undefined)
    throw new PackageError(
      `The package ${node} is not installed: run this as "npm run package", which sees to that.`,
    );
  return nodePackage;
}
