import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { architectureOf } from "../../packaging/architecture.ts";
import { makeTarball } from "../../packaging/tarball.ts";
import { layOut } from "../../packaging/tree.ts";
import { buildAll } from "../../scripts/build.ts";
import { Systemd } from "./init.ts";
import { ofOthers } from "./root-owned.ts";

const projectRoot = join(import.meta.dirname, "../..");
/** Debian 12's, where it can be had; the page says what 2.3 needs instead of its commands. */
const version = lab.versions.find((candidate) => candidate === "2.8") ?? lab.versions.at(-1) ?? "2.34";

/** The archive of the page, in a folder. */
async function makeArchive(folder: string): Promise<void> {
  const work = mkdtempSync(join(tmpdir(), "nix-broker-package-"));
  const architecture = architectureOf(process.arch);
  const dist = join(work, "dist");
  const tree = join(work, "tree");
  await buildAll(dist);
  layOut(tree, { architecture, prefix: "/usr/local", dist }, work);
  const target = join(folder, `nix-broker-1.0.0-linux-${architecture.debian}.tar.zst`);
  makeTarball(tree, target, { architecture, version: "1.0.0", time: 1e9, level: 1 });
  rmSync(work, { recursive: true });
}

/** What the NixOS module adds to the linker's unit, as NixOS writes it into a drop-in; its program is where the page puts it. */
async function nixosDropIn(daemon: Daemon): Promise<string> {
  const evaluate = `(import ${projectRoot}/test/nix/module-eval.nix { lib = import ${projectRoot}/test/nix/stand-in-lib.nix; configuration.services.nix-broker.enable = true; }).services.nix-broker-linker`;
  const { stdout } = await daemon.run(["nix-instantiate", "--eval", "--strict", "--json", "-E", evaluate], {
    env: { NIX_REMOTE: "" },
  });
  const lines = Object.entries(JSON.parse(stdout) as Record<string, string | string[]>).flatMap(
    ([key, value]) => [value].flat().map((one) => `${key}=${one}`),
  );
  return `[Service]\n${lines.join("\n").replace("/nix/store/nix-broker/bin/", "/usr/local/bin/")}\n`;
}

/** The status of what a page at a socket answers. */
function statusOf(socketPath: string, path: string, token: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    request(
      { socketPath, path, headers: { authorization: `Bearer ${token}`, host: "localhost" } },
      (reply) => {
        reply.resume();
        resolve(reply.statusCode);
      },
    )
      .on("error", reject)
      .end();
  });
}

/** The sections of the page with their commands. */
function sections(): { readonly title: string; readonly commands: string }[] {
  return readFileSync(join(projectRoot, "docs/install.md"), "utf8")
    .split(/^## /m)
    .slice(1)
    .map((section) => ({
      title: section.split("\n", 1)[0] ?? "",
      commands: /```sh\n([\s\S]*?)```/.exec(section)?.[1] ?? "",
    }))
    .filter(({ commands }) => commands !== "");
}

describe("docs/install.md, followed word for word on a clean system with a multi-user Nix", () => {
  let daemon: Daemon;
  let systemd: Systemd;
  let packages: string;
  beforeAll(async () => {
    // Not in the project's own dist/, which other tests may be using.
    packages = mkdtempSync(join(tmpdir(), "nix-broker-archive-"));
    mkdirSync(join(projectRoot, "dist"), { recursive: true });
    await makeArchive(packages);
    chmodSync(packages, 0o755);
    daemon = await lab.start(version);
    // Its namespace and store stay; systemd starts the daemon itself.
    await daemon.kill(true);
    systemd = await Systemd.start(daemon, undefined, packages);
    await systemd.run("systemctl", "start", "nix-daemon.socket");
    for (const program of ["nix", "nix-store", "nix-build"])
      writeFileSync(
        systemd.path(`/usr/local/bin/${program}`),
        `#!/bin/sh\nexec ${lab.clientFolder(version)}/${program} "$@"\n`,
        { mode: 0o755 },
      );
  });
  afterAll(async () => {
    systemd?.stop();
    await daemon?.stop();
    rmSync(packages, { recursive: true, force: true });
  });

  /** @returns what the commands printed; fails if they do */
  const follow = async (commands: string): Promise<string> => {
    const script = `set -e\ncd /opt/checkout\nexport HOME=/root\n${commands}`;
    const { code, stdout, stderr } = await systemd.run("bash", "-c", script);
    const log = code === 0 ? "" : await systemd.log();
    expect([code, code === 0 ? "" : stderr + log]).toEqual([0, ""]);
    return stdout;
  };
  /** @param printed what the commands of "Try it" printed */
  const expectNestedBuild = async (printed: string): Promise<void> => {
    const out = /^\/nix\/store\/\S+-outer\w*$/m.exec(printed)?.[0] ?? "";
    expect(out).not.toBe("");
    expect(printed).toContain("BuildPaths");
    expect(await follow(`NIX_REMOTE=daemon nix-store -q --references ${out}`)).toMatch(/-inner\w*\n$/);
  };

  test.each(sections())("$title", async ({ title, commands }) => {
    const printed = await follow(commands);
    // Its folder is for everybody here.
    expect(printed).not.toContain("cannot enter");
    if (title === "Try it") await expectNestedBuild(printed);
  });

  test("after a reboot, with /run empty, the service comes up by itself, with static sockets, the shared one, and those of builds", async () => {
    const own = "/run/nix-broker/shared/agents/one/socket";
    const shared = "/run/nix-broker/shared/socket";
    const entry = (path: string): string => `[[listen]]\npath = "${path}"\nallow_uids = ["*"]\n`;
    writeFileSync(systemd.path("/etc/nix-broker/config.toml"), `${entry(own)}${entry(shared)}`, {
      flag: "a",
    });
    const page = readFileSync(join(projectRoot, "docs/install.md"), "utf8");
    const [, commands = ""] = /^\*\*A socket that stays open[\s\S]*?\n\n((?: {4}.*\n)+)/m.exec(page) ?? [];
    expect(commands).toContain("nix-broker.socket");
    await follow(`nix-broker check-config\n${commands}`);
    expect(await systemd.show("nix-broker.socket", "ActiveState")).toBe("active");
    await systemd.reboot();
    expect(await follow("test -e /run/nix-broker/linker.sock || echo none yet")).toBe("none yet\n");
    await follow("systemctl start --no-block nix-daemon.socket multi-user.target");
    await until(async () => (await systemd.show("nix-broker.service", "ActiveState")) === "active");
    await until(async () => (await systemd.show("nix-broker-linker.service", "ActiveState")) === "active");
    expect(await systemd.show("nix-broker.service", "NRestarts")).toBe("0");
    await until(async () =>
      (await systemd.show("nix-broker.service", "StatusText")).startsWith("upstream reached"),
    );
    expect(await follow("nix-broker status")).toMatch(/^static sockets +2 open$/m);
    for (const socket of [own, shared]) {
      const client = `NIX_REMOTE=unix://${socket} nix-store --add /etc/machine-id`;
      expect(await follow(client)).toMatch(/-machine-id\n$/);
    }
    const tryIt = sections().find(({ title }) => title === "Try it")?.commands ?? "";
    await expectNestedBuild(
      await follow(tryIt.replace('"outer"', '"outer3"').replace('"inner"', '"inner3"')),
    );
  });

  test("the page's token as a credential, with the drop-in and the settings of the page", async () => {
    const page = readFileSync(join(projectRoot, "docs/install.md"), "utf8");
    const dropIn = /# systemctl edit nix-broker\.service\n([\s\S]*?)\n\n/.exec(page)?.[1] ?? "";
    const settings = /# config\.toml\n([\s\S]*?)\n\n/.exec(page)?.[1] ?? "";
    // A socket: the port may be another test's.
    const socket = "/run/nix-broker/shared/page.sock";
    const config = `${settings.replaceAll(/^ {4}/gm, "").replace("listen = 9465", `listen = "${socket}"`)}\n`;
    expect(config).toContain(socket);
    const token = "the-token-of-the-administrator";
    await follow(
      `umask 077; echo ${token} > /etc/nix-broker/web-token; mkdir -p /etc/systemd/system/nix-broker.service.d`,
    );
    writeFileSync(
      systemd.path("/etc/systemd/system/nix-broker.service.d/override.conf"),
      `${dropIn.replaceAll(/^ {4}/gm, "")}\n`,
    );
    writeFileSync(systemd.path("/etc/nix-broker/config.toml"), config, { flag: "a" });
    await follow("nix-broker check-config; systemctl daemon-reload; systemctl restart nix-broker.service");
    expect(await statusOf(systemd.path(socket), "/metrics", token)).toBe(200);
    expect(await statusOf(systemd.path(socket), "/metrics", `${token}r`)).toBe(401);
    // The service's user cannot read the file, only what systemd gave it.
    expect(await follow("stat -c '%U %a' /etc/nix-broker/web-token")).toBe("root 600\n");
  });

  test("where the store is a read-only mount, as on NixOS, the module's drop-in lets the linker work", async () => {
    await follow(`systemctl stop nix-daemon.service nix-broker-linker.service
mount --bind /nix/store /nix/store; mount -o remount,bind,ro /nix/store
systemctl start nix-broker-linker.service nix-daemon.service`);
    expect(await follow("nix-broker doctor || true")).toContain("is mounted read-only");
    await follow("mkdir -p /etc/systemd/system/nix-broker-linker.service.d");
    writeFileSync(
      systemd.path("/etc/systemd/system/nix-broker-linker.service.d/overrides.conf"),
      await nixosDropIn(daemon),
    );
    await follow("systemctl daemon-reload; systemctl restart nix-broker-linker.service");
    const tryIt = sections().find(({ title }) => title === "Try it")?.commands ?? "";
    await expectNestedBuild(
      await follow(tryIt.replace('"outer"', '"outer2"').replace('"inner"', '"inner2"')),
    );
    // For everybody else it is as read-only as before.
    expect(await follow("! touch /nix/store/new 2>&1")).toContain("Read-only file system");
  });

  test("nothing of it is left to others: files that root runs belong to root", async () => {
    const { stdout } = await systemd.run(...ofOthers("/usr/local/lib/nix-broker"));
    expect(stdout).toBe("");
    expect(await systemd.show("nix-broker.service", "ActiveState")).toBe("active");
    expect(await systemd.show("nix-broker-linker.service", "ActiveState")).toBe("active");
  });
});
