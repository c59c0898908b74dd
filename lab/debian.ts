/** Makes a Debian system out of downloaded packages, with dpkg's database: apt and maintainer scripts work in it. */
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { mustRun } from "./command.ts";
import { unpackPackages } from "./unpack.ts";

/** What every Debian system has, and apt and systemd. */
export const essential: readonly string[] = [
  "apt",
  "base-files",
  "base-passwd",
  "bash",
  "coreutils",
  "dash",
  "debianutils",
  "diffutils",
  "dpkg",
  "findutils",
  "grep",
  "gzip",
  "hostname",
  "init-system-helpers",
  "libc-bin",
  "login",
  "mawk",
  "mount",
  "ncurses-base",
  "ncurses-bin",
  "perl-base",
  "sed",
  "systemd",
  "sysvinit-utils",
  "tar",
  "util-linux",
];

/** The second unpacking, by dpkg itself, is what its database knows of. */
const configure = `
set -e
mount --make-rprivate /
mkdir "$2/packages"
mount --bind "$1" "$2/packages"
mount -t proc proc "$2/proc"
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin TERM=dumb
chroot "$2" sh -ec '
[ -e /usr/bin/awk ] || ln -s mawk /usr/bin/awk
dpkg --force-depends --unpack /packages/base-passwd_*.deb
dpkg --force-depends --configure base-passwd
dpkg --force-depends --unpack /packages/*.deb
dpkg --configure --pending'
`;

/** Unpacks and configures all packages of a folder, which have to have everything that they depend on. Needs root. */
export async function installPackages(packages: string, root: string, mergedUsr: boolean): Promise<void> {
  await unpackPackages(packages, root, mergedUsr);
  for (const folder of ["info", "updates", "triggers"])
    mkdirSync(join(root, "var/lib/dpkg", folder), { recursive: true });
  writeFileSync(join(root, "var/lib/dpkg/status"), "");
  for (const name of ["passwd", "group"])
    copyFileSync(join(root, `usr/share/base-passwd/${name}.master`), join(root, "etc", name));
  const patience = { timeoutMs: 600_000 };
  await mustRun(
    ["unshare", "--mount", "--pid", "--fork", "sh", "-c", configure, "sh", packages, root],
    patience,
  );
  await mustRun(["rmdir", join(root, "packages")]);
}
