/** A Nix that is installed after nix-broker: dpkg has to tell us, wherever the package of that Debian has its unit. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

const triggers = join(import.meta.dirname, "../../packaging/deb/triggers");

let work: string;
beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), "nix-broker-triggers-"));
});
afterEach(() => rmSync(work, { recursive: true }));

/** A package, laid out in the folder of its name. */
function layOut(name: string): string {
  const tree = join(work, name);
  mkdirSync(join(tree, "DEBIAN"), { recursive: true });
  const control = `Package: ${name}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.invalid>\nDescription: for a test\n`;
  writeFileSync(join(tree, "DEBIAN/control"), control);
  return tree;
}

function install(name: string): void {
  const deb = join(work, `${name}.deb`);
  execFileSync("dpkg-deb", ["--root-owner-group", "-Znone", "--build", join(work, name), deb]);
  const root = join(work, "root");
  const options = [`--root=${root}`, "--force-script-chrootless", "--force-not-root", `--log=${work}/log`];
  execFileSync("dpkg", [...options, "--install", deb], { stdio: ["ignore", "pipe", "pipe"] });
}

test.each([
  ["Debian 13", "usr/lib/systemd/system/nix-daemon.service"],
  ["Debian 12", "lib/systemd/system/nix-daemon.service"],
])("the package is told when Nix comes, as %s has it", (_, unit) => {
  for (const folder of ["updates", "info", "triggers"])
    mkdirSync(join(work, "root/var/lib/dpkg", folder), { recursive: true });
  writeFileSync(join(work, "root/var/lib/dpkg/status"), "");

  const broker = layOut("nix-broker");
  copyFileSync(triggers, join(broker, "DEBIAN/triggers"));
  const told = join(work, "told");
  writeFileSync(join(broker, "DEBIAN/postinst"), `#!/bin/sh\necho "$1" >> '${told}'\n`, { mode: 0o755 });
  install("nix-broker");

  const nix = layOut("nix-setup-systemd");
  mkdirSync(dirname(join(nix, unit)), { recursive: true });
  writeFileSync(join(nix, unit), "");
  install("nix-setup-systemd");
  expect(readFileSync(told, "utf8")).toBe("configure\ntriggered\n");
});
