import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { startProcess } from "../../lab/command.ts";
import { architectureOf } from "../../packaging/architecture.ts";
import { makeDeb } from "../../packaging/deb.ts";
import { layOut } from "../../packaging/tree.ts";
import { buildAll } from "../../scripts/build.ts";
import { asRoot, describeEachDebian, packageFolder, startDebian } from "./debian.ts";
import type { Systemd } from "./init.ts";
import { outerBuild, slowInnerBuilds } from "./nested-builds.ts";
import { changesOf, snapshot } from "./snapshot.ts";

const architecture = architectureOf(process.arch);
const packages = mkdtempSync(join(tmpdir(), "nix-broker-debs-"));
const debOf = (version: string): string => `nix-broker_${version}_${architecture.debian}.deb`;
const versions = ["1.0.0", "1.0.1"] as const;

/** As in another version: no piece of the bundle has the name that it had. */
function renameChunks(programs: string): void {
  const chunks = join(programs, "chunks");
  const names = readdirSync(chunks).map((name) => name.replace(/\.js$/, ""));
  const rename = (path: string): void => {
    const text = readFileSync(path, "utf8");
    writeFileSync(
      path,
      names.reduce((changed, name) => changed.replaceAll(`${name}.js`, `${name}-next.js`), text),
    );
  };
  for (const name of names) {
    rename(join(chunks, `${name}.js`));
    renameSync(join(chunks, `${name}.js`), join(chunks, `${name}-next.js`));
  }
  for (const name of ["main.js", "page-audit.js"]) rename(join(programs, name));
}

beforeAll(async () => {
  const work = mkdtempSync(join(tmpdir(), "nix-broker-package-"));
  const dist = join(work, "dist");
  const tree = join(work, "tree");
  await buildAll(dist);
  layOut(tree, { architecture, prefix: "/usr", dist }, work);
  for (const version of versions) {
    if (version !== versions[0]) renameChunks(join(tree, "usr/lib/nix-broker"));
    makeDeb(tree, join(packages, debOf(version)), { architecture, version, time: 1e9, compression: "none" });
  }
  rmSync(work, { recursive: true });
});
afterAll(() => rmSync(packages, { recursive: true, force: true }));

describeEachDebian("the package, on a clean system with Debian's own Nix", ["trixie", "sid"], (suite) => {
  let systemd: Systemd;
  let before: Map<string, string>;
  let nixConf: string;
  beforeAll(async () => {
    systemd = await startDebian(suite, packages);
    before = await snapshot(systemd);
    nixConf = await must("cat", "/etc/nix/nix.conf");
  });
  afterAll(() => systemd?.stop());

  /** What a command prints; it has to succeed. */
  const must = async (...argv: string[]): Promise<string> => {
    const { code, stdout, stderr } = await systemd.run(...asRoot, ...argv);
    expect([argv.join(" "), code, code === 0 ? "" : `${stdout}${stderr}`]).toEqual([argv.join(" "), 0, ""]);
    return stdout;
  };
  const apt = (...args: string[]): Promise<string> => must("apt-get", "-y", ...args);
  const install = (version: string): Promise<string> => apt("install", `${packageFolder}/${debOf(version)}`);
  const mainPid = (): Promise<string> => systemd.show("nix-broker.service", "MainPID");

  test("is installed by one command, which ends with what doctor says", async () => {
    const printed = await install(versions[0]);
    expect(printed).toContain("group nix-users now, which may enter /nix/var/nix/daemon-socket");
    expect(printed).toContain("system-features: this machine builds what asks for nix-broker");
    expect(printed).toMatch(/\b0 problems, \d+ warnings?\.\s*$/);
    for (const unit of ["nix-broker.service", "nix-broker-linker.service"]) {
      expect(await systemd.show(unit, "ActiveState")).toBe("active");
      expect(await systemd.show(unit, "UnitFileState")).toBe("enabled");
      expect(await systemd.show(unit, "NRestarts")).toBe("0");
    }
  });

  test("leaves the administrator's nix.conf alone, but for one line that includes its own", async () => {
    expect(await must("cat", "/etc/nix/nix.conf")).toBe(`${nixConf}!include nix-broker.conf\n`);
    // Nothing is left to others of what root runs.
    expect(
      await must(
        "find",
        "/usr/lib/nix-broker",
        "/etc/nix",
        "!",
        "-user",
        "root",
        "-o",
        "-perm",
        "/022",
        "!",
        "-type",
        "l",
      ),
    ).toBe("");
  });

  test("a build builds inside, and gets the reference", async () => {
    const out = (await must(...outerBuild("first"))).trim();
    expect(await must("nix-store", "-q", "--references", out)).toMatch(/-inner-first\n$/);
    expect(await must("nix-broker", "audit", "--op", "BuildPaths")).toContain("forward");
  });

  test("an upgrade lets a nested build go on with the old version, and then starts the new one", async () => {
    const old = await mainPid();
    const building = startProcess(systemd.commandLine(...asRoot, ...slowInnerBuilds("/tmp/go-on")));
    let said = "";
    const ended = new Promise<number | null>((resolve) => building.on("close", resolve));
    const started = new Promise<void>((resolve) => {
      building.stderr?.on("data", (text: Buffer) => {
        said += text.toString();
        if (said.includes("inner-1 is built")) resolve();
      });
    });
    await Promise.race([
      started,
      ended.then((code) => Promise.reject(new Error(`ended with ${code}:\n${said}`))),
    ]);

    expect(await install(versions[1])).toContain("the old version goes on serving 1 running builds");
    expect(await mainPid()).toBe(old);
    await must("touch", "/tmp/go-on");
    expect([await ended, said]).toEqual([0, expect.stringContaining("inner-3 is built")]);

    await must("sh", "-c", "while systemctl is-active --quiet nix-broker-upgrade; do sleep 0.1; done");
    expect(await mainPid()).not.toBe(old);
    expect(await systemd.show("nix-broker.service", "ActiveState")).toBe("active");
    await must(...outerBuild("after-the-upgrade"));
  });

  test("an upgrade while no build runs starts the new version at once", async () => {
    const old = await mainPid();
    expect(await apt("reinstall", `${packageFolder}/${debOf(versions[1])}`)).not.toContain("goes on serving");
    expect(await mainPid()).not.toBe(old);
  });

  test("removing it takes the hooks from Nix, and leaves configuration and audit with their user", async () => {
    const printed = await apt("remove", "nix-broker");
    expect(printed).toContain("the audit in /var/lib/nix-broker, its user and /etc/nix-broker stay");
    const changes = changesOf(before, await snapshot(systemd));
    expect(changes.filter((line) => !/ \/(etc|var\/lib)\/nix-broker(\/|$)/.test(line))).toEqual([
      "changed /etc/group",
      "changed /etc/gshadow",
      "changed /etc/passwd",
      "changed /etc/shadow",
    ]);
    await must(...outerBuild("plain", { feature: false }));
  });

  test("after a purge the machine is as it was", async () => {
    await apt("purge", "nix-broker");
    expect(changesOf(before, await snapshot(systemd))).toEqual([]);
  });
});
