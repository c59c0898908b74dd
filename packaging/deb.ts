/** Makes a Debian package of an installation's tree. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, lstatSync, lutimesSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join, relative } from "node:path";
import { type Architecture, PackageError } from "./architecture.ts";
import { gzip, settleModes, shell, write } from "./tree.ts";

const projectRoot = join(import.meta.dirname, "..");
const maintainer = "The nix-broker authors <maintainers@nix-broker.invalid>";

export interface DebOptions {
  readonly architecture: Architecture;
  readonly version: string;
  /** Seconds since 1970 that all files are given. */
  readonly time: number;
  /** As for `dpkg-deb`; xz is what every Debian from 11 on can unpack. */
  readonly compression?: "xz" | "none";
}

/**
 * @param tree laid out for /usr; the parts that only Debian has are added
 * @throws PackageError when dpkg-deb is missing or fails
 */
export function makeDeb(tree: string, target: string, options: DebOptions): void {
  const { version, time } = options;
  const documents = join(tree, "usr/share/doc/nix-broker");
  write(join(documents, "copyright"), copyright());
  write(join(documents, "changelog.gz"), gzip(changelog(version, time)));
  cpSync(
    join(import.meta.dirname, "lintian-overrides"),
    join(tree, "usr/share/lintian/overrides/nix-broker"),
  );
  const debian = join(tree, "DEBIAN");
  rmSync(debian, { recursive: true, force: true });
  mkdirSync(debian);
  const files = filesBelow(tree).filter((path) => !path.startsWith(debian));
  for (const script of ["postinst", "prerm", "postrm"])
    write(join(debian, script), shell(`deb/${script}.sh`), 0o755);
  write(join(debian, "triggers"), shell("deb/triggers"));
  write(join(debian, "control"), control(options, files));
  write(join(debian, "md5sums"), files.map((path) => `${md5(path)}  ${relative(tree, path)}\n`).join(""));
  settleModes(tree);
  setTimes(tree, time);
  try {
    execFileSync(
      "dpkg-deb",
      ["--root-owner-group", `-Z${options.compression ?? "xz"}`, "--build", tree, target],
      {
        env: { ...process.env, SOURCE_DATE_EPOCH: String(time) },
        stdio: ["ignore", "ignore", "pipe"],
      },
    );
  } catch (error) {
    throw new PackageError(`dpkg-deb cannot make ${target}: ${(error as Error).message}`, { cause: error });
  }
}

function control({ architecture, version }: DebOptions, files: readonly string[]): string {
  const bytes = files.reduce((sum, path) => sum + lstatSync(path).size, 0);
  return `Package: nix-broker
Version: ${version}
Architecture: ${architecture.debian}
Maintainer: ${maintainer}
Installed-Size: ${Math.ceil(bytes / 1024)}
Depends: libc6 (>= 2.28), libgcc-s1, libstdc++6, systemd (>= 247), init-system-helpers (>= 1.54~), passwd
Suggests: nix-setup-systemd, bubblewrap
Enhances: nix-bin
Section: devel
Priority: optional
Description: hands the Nix daemon's socket to sandboxes
 A proxy of nix-daemon's socket for sandboxes: builds, jails, containers.
 Each request is decoded, judged by a profile, answered, denied or forwarded,
 and recorded in an audit. Builds that ask for it may build with Nix inside,
 on a stock Nix daemon, and get the references of what they built.
 .
 Node is in the package. Installing it names two hooks to Nix, in a file that
 /etc/nix/nix.conf then includes.
`;
}

function changelog(version: string, time: number): string {
  const date = new Date(time * 1000).toUTCString().replace("GMT", "+0000");
  return `nix-broker (${version}) unstable; urgency=medium\n\n  * CHANGELOG.md tells what has changed.\n\n -- ${maintainer}  ${date}\n`;
}

function copyright(): string {
  const [, holder = "", ...rest] = readFileSync(join(projectRoot, "LICENSE"), "utf8").trim().split(/\n\n+/);
  const text = rest
    .join("\n\n")
    .split("\n")
    .map((line) => (line === "" ? " ." : ` ${line}`))
    .join("\n");
  return readFileSync(join(import.meta.dirname, "copyright"), "utf8")
    .replace("@COPYRIGHT@", holder.replace(/^Copyright \(c\) /, ""))
    .replace("@LICENSE@", text);
}

function md5(path: string): string {
  return createHash("md5").update(readFileSync(path)).digest("hex");
}

/** Files, not links, in an order that is always the same. */
function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .map((name) => join(folder, name))
    .filter((path) => lstatSync(path).isFile())
    .sort();
}

/** Gives everything in a folder the same time, so that a package depends on its contents alone. */
export function setTimes(folder: string, time: number): void {
  for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" }))
    lutimesSync(join(folder, name), time, time);
  lutimesSync(folder, time, time);
}
