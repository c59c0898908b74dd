import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runCommand, shellQuote, startProcess } from "../../lab/command.ts";
import { architectureOf } from "../../packaging/architecture.ts";
import { makeDeb } from "../../packaging/deb.ts";
import { makeTarball } from "../../packaging/tarball.ts";
import { layOut } from "../../packaging/tree.ts";
import { buildAll } from "../../scripts/build.ts";
import { asRoot, debianWith, describeEachDebian, packageFolder, startDebian } from "./debian.ts";
import type { Systemd } from "./init.ts";
import { outerBuild, slowInnerBuilds } from "./nested-builds.ts";
import { ofOthers } from "./root-owned.ts";
import { changesOf, snapshot } from "./snapshot.ts";

const architecture = architectureOf(process.arch);
const packages = mkdtempSync(join(tmpdir(), "nix-broker-debs-"));
const debOf = (version: string): string => `nix-broker_${version}_${architecture.debian}.deb`;
const versions = ["1.0.0", "1.0.1"] as const;

const lintian = await debianWith("trixie", ["lintian"]);

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
  for (const name of ["main.js", "page-audit.js", "fetcher.js"]) rename(join(programs, name));
}

beforeAll(async () => {
  const work = mkdtempSync(join(tmpdir(), "nix-broker-package-"));
  const dist = join(work, "dist");
  await buildAll(dist);
  const [first, next] = versions;
  const options = { architecture, time: 1e9 };
  const lay = (prefix: string, name: string): string => {
    layOut(join(work, name), { architecture, prefix, dist }, work);
    return join(work, name);
  };
  const tree = lay("/usr", "tree");
  makeDeb(tree, join(packages, debOf(first)), { ...options, version: first, compression: "none" });
  renameChunks(join(tree, "usr/lib/nix-broker"));
  makeDeb(tree, join(packages, debOf(next)), { ...options, version: next, compression: "none" });
  for (const version of versions) {
    const local = lay("/usr/local", version);
    if (version === next) renameChunks(join(local, "usr/local/lib/nix-broker"));
    const archive = join(work, `nix-broker-${version}.tar.zst`);
    makeTarball(local, archive, { ...options, version, level: 1 });
    // As an ordinary user's, who is careful.
    const unpack = 'umask 077 && exec tar --no-same-permissions --use-compress-program=zstd -xf "$0" -C "$1"';
    execFileSync("sh", ["-c", unpack, archive, packages]);
  }
  rmSync(work, { recursive: true });
});
afterAll(() => rmSync(packages, { recursive: true, force: true }));

test.each([
  ["Debian package", makeDeb],
  ["archive", makeTarball],
] as const)("the %s depends on its files alone, not on who makes it when and where", (_, make) => {
  const hashes = [0o022, 0o077].map((umask) => {
    const work = mkdtempSync(join(tmpdir(), "nix-broker-made-"));
    const before = process.umask(umask);
    try {
      const tree = join(work, "tree");
      mkdirSync(join(tree, "usr/lib"), { recursive: true });
      writeFileSync(join(tree, "usr/lib/program"), "#!/bin/sh\n", { mode: 0o777 });
      const target = join(work, "made.tar.zst");
      make(tree, target, { architecture, version: "1.0.0", time: 1e9 });
      return createHash("sha256").update(readFileSync(target)).digest("hex");
    } finally {
      process.umask(before);
      rmSync(work, { recursive: true });
    }
  });
  expect(hashes[1]).toBe(hashes[0]);
});

/** As here, to save time. */
const notCompressed = ["control", "data"].map((part) => `uses-no-compression-for-${part}-tarball`).join(",");

test.skipIf(lintian === undefined)("lintian finds no error in the Debian package", async () => {
  const at = (path: string): string => shellQuote(join(lintian ?? "", path));
  const script = [
    `mount -t tmpfs tmpfs ${at("tmp")}`,
    `mkdir ${at("tmp/packages")}`,
    `mount --bind ${shellQuote(packages)} ${at("tmp/packages")}`,
    `mount -t proc proc ${at("proc")}`,
    `exec chroot ${at("")} /usr/bin/env -i PATH=/usr/bin:/bin LC_ALL=C lintian --allow-root --fail-on error --suppress-tags ${notCompressed} /tmp/packages/${debOf(versions[0])}`,
  ];
  const { code, stdout, stderr } = await runCommand(["unshare", "--mount", "sh", "-ec", script.join("\n")]);
  expect(`${stdout}${stderr}`).not.toMatch(/^E: /m);
  expect(code, stderr).toBe(0);
});

/** What a user who was made leaves changed. */
const accounts = ["group", "gshadow", "passwd", "shadow"].map((name) => `changed /etc/${name}`);

/** What the tests of both kinds of installation do on a system. */
class Machine {
  private readonly systemd: Systemd;

  constructor(systemd: Systemd) {
    this.systemd = systemd;
  }

  /** What a command prints; it has to succeed. */
  async must(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.systemd.run(...asRoot, ...argv);
    const command = argv.join(" ");
    expect([command, code, code === 0 ? "" : `${stdout}${stderr}`]).toEqual([command, 0, ""]);
    return stdout;
  }

  mainPid(): Promise<string> {
    return this.systemd.show("nix-broker.service", "MainPID");
  }

  /** A build that has built one thing inside, and builds two more once it may finish. */
  async startSlowBuild(): Promise<{ finish(): Promise<void> }> {
    await this.must("rm", "-f", "/tmp/go-on");
    const building = startProcess(this.systemd.commandLine(...asRoot, ...slowInnerBuilds("/tmp/go-on")));
    let said = "";
    const ended = new Promise<number | null>((resolve) => building.on("close", resolve));
    const started = new Promise<void>((resolve) => {
      building.stderr?.on("data", (text: Buffer) => {
        said += text.toString();
        if (said.includes("inner-1 is built")) resolve();
      });
    });
    const early = ended.then((code) => Promise.reject(new Error(`it ended with ${code}:\n${said}`)));
    await Promise.race([started, early]);
    // From here on it is expected to end.
    early.catch(() => {});
    return {
      finish: async () => {
        await this.must("touch", "/tmp/go-on");
        expect([await ended, said]).toEqual([0, expect.stringContaining("inner-3 is built")]);
      },
    };
  }

  /** Until nothing waits any more to start the new version. */
  async untilUpgraded(): Promise<void> {
    await this.must("sh", "-c", "while systemctl is-active --quiet nix-broker-upgrade; do sleep 0.1; done");
  }
}

describeEachDebian("the package, on a clean system with Debian's own Nix", ["trixie", "sid"], (suite) => {
  let systemd: Systemd;
  let machine: Machine;
  let before: Map<string, string>;
  let nixConf: string;
  beforeAll(async () => {
    systemd = await startDebian(suite, packages);
    machine = new Machine(systemd);
    await must("useradd", "--create-home", "--groups", "nix-users", "alice");
    await must("install", "-d", "-o", "alice", "/home/alice/project");
    // Debian's Nix gives builds no shell.
    await must("sh", "-c", "echo extra-sandbox-paths = /usr /lib /lib64 >> /etc/nix/nix.conf");
    before = await snapshot(systemd);
    nixConf = await must("cat", "/etc/nix/nix.conf");
  });
  afterAll(() => systemd?.stop());

  const must = (...argv: string[]): Promise<string> => machine.must(...argv);
  const apt = (...args: string[]): Promise<string> => must("apt-get", "-y", ...args);
  const install = (version: string): Promise<string> => apt("install", `${packageFolder}/${debOf(version)}`);

  test("is installed by one command, which ends with what doctor says", async () => {
    const printed = await install(versions[0]);
    expect(printed).toContain("group nix-users now, which may enter /nix/var/nix/daemon-socket");
    expect(printed).toContain("system-features: this machine builds what asks for nix-broker");
    expect(printed).toMatch(/\b0 problems, \d+ warnings?\.\s*$/);
    for (const unit of ["nix-broker.service", "nix-broker-linker.service", "nix-broker-fetch.socket"]) {
      expect(await systemd.show(unit, "ActiveState")).toBe("active");
      expect(await systemd.show(unit, "UnitFileState")).toBe("enabled");
      expect(await systemd.show(unit, "NRestarts")).toMatch(/^0?$/);
    }
  });

  test("leaves the administrator's nix.conf alone, but for one line that includes its own", async () => {
    expect(await must("cat", "/etc/nix/nix.conf")).toBe(`${nixConf}!include nix-broker.conf\n`);
    // Nothing is left to others of what root runs.
    expect(await must(...ofOthers("/usr/lib/nix-broker", "/etc/nix"))).toBe("");
  });

  test("an ordinary user has a jail by one command, and in it a Nix", async () => {
    const expression = `derivation {
      name = "in-jail"; system = builtins.currentSystem; builder = "/usr/bin/sh"; args = [ "-c" "echo made > $out" ];
    }`;
    const inJail = [
      "nix-broker",
      "jail",
      "--",
      "sh",
      "-c",
      'cat $(nix-build -E "$0"); nix-store --gc',
      expression,
    ];
    const asAlice = [
      "runuser",
      "-u",
      "alice",
      "--",
      "env",
      "-C",
      "/home/alice/project",
      "HOME=/home/alice",
      ...inJail,
    ];
    const { code, stdout, stderr } = await systemd.run(...asRoot, ...asAlice);
    expect(stdout, stderr).toMatch(/^made\n/);
    expect(code).not.toBe(0);
    expect(stderr).toContain("CollectGarbage");
    expect(await must("readlink", "/home/alice/project/result")).toMatch(/-in-jail\n$/);
    await must("rm", "-r", "/home/alice/project/result", "/home/alice/.local");
  });

  test("a build builds inside, and gets the reference", async () => {
    const out = (await must(...outerBuild("first"))).trim();
    expect(await must("nix-store", "-q", "--references", out)).toMatch(/-inner-first\n$/);
    expect(await must("nix-broker", "audit", "--op", "BuildPaths")).toContain("forward");
  });

  test("compiled hooks need nothing but the linker", async () => {
    // The scripts do the work where the linker's unit may not look at the hooks, say: nobody would notice.
    const hooks = ["/usr/lib/nix-broker/pre-build-hook", "/usr/lib/nix-broker/post-build-hook"];
    const compiled = "for hook; do test -L $hook || mv $hook.sh $hook.away; done";
    await must("sh", "-c", compiled, "sh", ...hooks);
    const out = (await must(...outerBuild("compiled"))).trim();
    await must("sh", "-c", "for hook; do test -L $hook || mv $hook.away $hook.sh; done", "sh", ...hooks);
    expect(await must("nix-store", "-q", "--references", out)).toMatch(/-inner-compiled\n$/);
  });

  test("an upgrade lets a nested build go on with the old version, and then starts the new one", async () => {
    const old = await machine.mainPid();
    const building = await machine.startSlowBuild();
    expect(await install(versions[1])).toContain("the old version goes on serving 1 running builds");
    expect(await machine.mainPid()).toBe(old);
    await building.finish();

    await machine.untilUpgraded();
    expect(await machine.mainPid()).not.toBe(old);
    expect(await systemd.show("nix-broker.service", "ActiveState")).toBe("active");
    await must(...outerBuild("after-the-upgrade"));
  });

  test("an upgrade while no build runs starts the new version at once", async () => {
    const old = await machine.mainPid();
    expect(await apt("reinstall", `${packageFolder}/${debOf(versions[1])}`)).not.toContain("goes on serving");
    expect(await machine.mainPid()).not.toBe(old);
  });

  test("removing it takes the hooks from Nix, and leaves configuration and audit with their user", async () => {
    const printed = await apt("remove", "nix-broker");
    expect(printed).toContain("the audit in /var/lib/nix-broker, its user and /etc/nix-broker stay");
    // Our own connections are no clients that would have to connect again.
    expect(printed).not.toContain("go on with the hooks");
    const changes = changesOf(before, await snapshot(systemd));
    expect(changes.filter((line) => !/ \/(etc|var\/lib)\/nix-broker(\/|$)/.test(line))).toEqual(accounts);
    await must(...outerBuild("plain", { feature: false }));
  });

  test("after a purge that nobody was asked about, the audit stays with its user, and nothing else", async () => {
    await apt("purge", "nix-broker");
    const changes = changesOf(before, await snapshot(systemd));
    expect(changes).toEqual([
      ...accounts,
      ...changes.filter((line) => / \/var\/lib\/nix-broker(\/|$)/.test(line)),
    ]);
    expect(changes).toContain("new /var/lib/nix-broker/audit");
    expect(await must("cat", "/etc/nix/nix.conf")).toBe(nixConf);
  });

  test("after a purge of the audit, too, the machine is as it was", async () => {
    await install(versions[1]);
    await must("sh", "-c", "echo nix-broker nix-broker/remove-audit boolean true | debconf-set-selections");
    await apt("purge", "nix-broker");
    expect(changesOf(before, await snapshot(systemd))).toEqual([]);
  });
});

describeEachDebian("the archive's script, without dpkg's database", ["trixie"], (suite) => {
  let machine: Machine;
  let systemd: Systemd;
  let before: Map<string, string>;
  beforeAll(async () => {
    systemd = await startDebian(suite, packages);
    machine = new Machine(systemd);
    await machine.must("sh", "-c", "rm -r /var/lib/dpkg /usr/bin/dpkg* /usr/bin/apt* /usr/bin/deb-systemd-*");
    before = await snapshot(systemd);
  });
  afterAll(() => systemd?.stop());

  test("installs, and ends with what doctor says", async () => {
    // Somebody who guesses the names of its temporary files.
    const guess = `#!/bin/sh\nmade=$(/usr/bin/mktemp "$@") && echo "$made"\nfor end in .folders .new; do ln -s /etc/precious "$made$end"; done\n`;
    await machine.must(
      "sh",
      "-c",
      `echo kept > /etc/precious; mkdir /tmp/guess; printf %s "$0" > /tmp/guess/mktemp; chmod 755 /tmp/guess/mktemp`,
      guess,
    );
    const script = `${packageFolder}/nix-broker-${versions[0]}/install.sh`;
    // By a relative path, and with a CDPATH, by which cd prints where it goes.
    const called = `cd / && PATH=/tmp/guess:/usr/sbin:/usr/bin CDPATH=.:/ ${script.slice(1)}`;
    const printed = await machine.must("sh", "-c", called);
    expect(printed).toMatch(/\n0 problems, \d+ warnings?\.\n/);
    expect(await machine.must("cat", "/etc/precious")).toBe("kept\n");
    await machine.must("rm", "-r", "/etc/precious", "/tmp/guess");
    // What root installed is root's, and for everybody to read.
    expect(await machine.must(...ofOthers("/usr/local/lib/nix-broker"), "-o", "!", "-perm", "-444")).toBe("");
    await machine.must(...outerBuild("first"));
    expect(await machine.must("cat", "/etc/nix/nix-broker.conf")).toContain(
      "\npre-build-hook = /usr/local/lib/nix-broker/pre-build-hook\n",
    );
  });

  test("replaces the installed version while a nested build runs", async () => {
    const old = await machine.mainPid();
    const building = await machine.startSlowBuild();
    // From where it is, as others start scripts.
    const inItsFolder = `cd ${packageFolder}/nix-broker-${versions[1]} && sh install.sh`;
    const printed = await machine.must("sh", "-c", inItsFolder);
    expect(printed).toContain("the old version goes on serving 1 running builds");
    // What only the old version had is gone.
    expect(await machine.must("ls", "/usr/local/lib/nix-broker/chunks")).not.toMatch(/^(?!.*-next\.js$)./m);
    expect(await machine.mainPid()).toBe(old);
    await building.finish();
    await machine.untilUpgraded();
    expect(await machine.mainPid()).not.toBe(old);
  });

  test("--remove leaves configuration and audit with their user; --purge asks about the audit", async () => {
    await machine.must("/usr/local/lib/nix-broker/install.sh", "--remove");
    const changes = changesOf(before, await snapshot(systemd));
    expect(changes.filter((line) => !/ \/(etc|var\/lib)\/nix-broker(\/|$)/.test(line))).toEqual(accounts);
    const script = `${packageFolder}/nix-broker-${versions[1]}/install.sh`;
    expect(await machine.must(script, "--purge")).toContain("the audit in /var/lib/nix-broker stays");
    expect(changesOf(before, await snapshot(systemd))).toContain("new /var/lib/nix-broker/audit");
    await machine.must("sh", "-c", `echo yes | ${script} --purge`);
    expect(changesOf(before, await snapshot(systemd))).toEqual([]);
  });
});
