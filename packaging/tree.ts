/** Lays out all files of an installation in a folder, as they will be below `/`. */
import {
  chmodSync,
  cpSync,
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { isPackage, ownNode } from "../scripts/build.ts";
import { buildHooks } from "../scripts/build-hooks.ts";
import { type Architecture, PackageError } from "./architecture.ts";
import { copyDocuments } from "./documents.ts";
import { addLicences } from "./licences.ts";
import { addNativeParts } from "./native-parts.ts";

const projectRoot = join(import.meta.dirname, "..");

export interface Layout {
  readonly architecture: Architecture;
  /** "/usr" in a distribution's package, "/usr/local" for what an administrator installs. */
  readonly prefix: string;
  /** Where `npm run build` has put its bundles. */
  readonly dist: string;
}

/**
 * @param scratch a folder for what is fetched
 * @throws PackageError when a part is missing
 */
export function layOut(tree: string, { architecture, prefix, dist }: Layout, scratch: string): void {
  const at = (path: string): string => join(tree, prefix, path);
  const programs = at("lib/nix-broker");
  copyPrograms(dist, programs);
  // Those of the bundle are compiled for this machine.
  if (architecture.node !== process.arch) buildHooks(programs, `${architecture.machine}-linux-gnu-gcc`);
  const node = addNativeParts(architecture, programs, scratch);
  cpSync(join(node, "bin/node"), join(programs, "node"));
  for (const launcher of ["nix-broker", "nix-broker-root"])
    change(join(programs, launcher), [
      [ownNode("$self"), ""],
      [ownNode("$0"), ""],
      [":-node}", `:-${prefix}/lib/nix-broker/node}`],
    ]);
  write(join(programs, "set-up"), shell("set-up.sh"), 0o755);
  mkdirSync(at("bin"), { recursive: true });
  symlinkSync("../lib/nix-broker/nix-broker", at("bin/nix-broker"));

  addUnits(at, prefix);
  addDocumentation(at, { prefix, dist }, node);
  // Nix expressions that builds import.
  cpSync(join(projectRoot, "lib"), at("share/nix-broker/lib"), { recursive: true });
  settleModes(tree);
}

function copyPrograms(dist: string, programs: string): void {
  const apart = ["man", "completions"];
  // Packages that were made before are there, too.
  for (const name of readdirSync(dist))
    if (!apart.includes(name) && !isPackage(name))
      cpSync(join(dist, name), join(programs, name), { recursive: true });
}

function addUnits(at: (path: string) => string, prefix: string): void {
  const source = join(projectRoot, "systemd");
  for (const name of globSync("*.{service,socket}", { cwd: source })) {
    const unit = at(`lib/systemd/system/${name}`);
    copy(join(source, name), unit);
    change(unit, [
      ["ExecStart=nix-broker", `ExecStart=${prefix}/bin/nix-broker`],
      ["ExecReload=nix-broker", `ExecReload=${prefix}/bin/nix-broker`],
      ["/usr/share/doc", `${prefix}/share/doc`],
    ]);
  }
  copy(join(source, "sysusers.conf"), at("lib/sysusers.d/nix-broker.conf"));
  copy(join(source, "tmpfiles.conf"), at("lib/tmpfiles.d/nix-broker.conf"));
}

function addDocumentation(
  at: (path: string) => string,
  { prefix, dist }: Pick<Layout, "prefix" | "dist">,
  node: string,
): void {
  copyDocuments(at("share/doc/nix-broker"), prefix);
  addLicences(at("share/doc/nix-broker/licenses"), node);
  for (const page of globSync("man/*.[1-9]", { cwd: dist }))
    write(at(`share/man/man${page.at(-1)}/${basename(page)}.gz`), gzip(readFileSync(join(dist, page))));
  for (const name of globSync("completions/*", { cwd: dist }))
    copy(join(dist, name), at(completionPlace(basename(name), prefix)));
}

/** Where the shell of a completion looks for it. @throws PackageError when it is no known shell's */
function completionPlace(name: string, prefix: string): string {
  if (name.endsWith(".bash")) return `share/bash-completion/completions/${name.slice(0, -".bash".length)}`;
  if (name.endsWith(".fish")) return `share/fish/vendor_completions.d/${name}`;
  // The first is Debian's.
  if (name.startsWith("_"))
    return `share/zsh/${prefix === "/usr" ? "vendor-completions" : "site-functions"}/${name}`;
  throw new PackageError(`dist/completions/${name}: which shell is that for?`);
}

/** Without the time, and as small as can be. */
export function gzip(contents: string | Buffer): Buffer {
  return gzipSync(contents, { level: 9 });
}

/** A script of packaging/, with the parts that it names put in. */
export function shell(name: string): string {
  return readFileSync(join(import.meta.dirname, name), "utf8").replace(
    /^#INCLUDE (\S+)$/gm,
    (_, part: string) => shell(part).trimEnd(),
  );
}

export function write(path: string, contents: string | Buffer, mode = 0o644): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, contents);
  chmodSync(path, mode);
}

function copy(source: string, target: string): void {
  if (!existsSync(source)) throw new PackageError(`${source} is missing.`);
  cpSync(source, target);
}

/** Replaces texts in a file, wherever they are. */
function change(path: string, replacements: readonly (readonly [string, string])[]): void {
  let text = readFileSync(path, "utf8");
  for (const [from, to] of replacements) text = text.replaceAll(from, to);
  writeFileSync(path, text);
}

/** What root installs can be changed by root alone, and read by all, whatever the umask of who makes the package. */
export function settleModes(path: string): void {
  const stats = lstatSync(path);
  if (stats.isSymbolicLink()) return;
  const runs = stats.isDirectory() || (stats.mode & 0o100) !== 0;
  const library = path.endsWith(".node");
  chmodSync(path, runs && !library ? 0o755 : 0o644);
  if (stats.isDirectory()) for (const name of readdirSync(path)) settleModes(join(path, name));
}
