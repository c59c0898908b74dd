import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildAll } from "../../scripts/build.ts";
import { type Daemon, lab } from "../lab/lab.ts";
import { Systemd } from "./init.ts";

const projectRoot = join(import.meta.dirname, "../..");
/** Debian 12's, where it can be had; the page says what 2.3 needs instead of its commands. */
const version = lab.versions.find((candidate) => candidate === "2.8") ?? lab.versions.at(-1) ?? "2.34";

/** The sections of the page with their commands. */
const sections = (): { readonly title: string; readonly commands: string }[] =>
  readFileSync(join(projectRoot, "docs/install.md"), "utf8")
    .split(/^## /m)
    .slice(1)
    .map((section) => ({
      title: section.split("\n", 1)[0] ?? "",
      commands: /```sh\n([\s\S]*?)```/.exec(section)?.[1] ?? "",
    }))
    .filter(({ commands }) => commands !== "");

describe("docs/install.md, followed word for word on a clean system with a multi-user Nix", () => {
  let daemon: Daemon;
  let systemd: Systemd;
  let dist: string;
  beforeAll(async () => {
    // Not in the project's own dist/, which other tests may be using.
    dist = mkdtempSync(join(tmpdir(), "nix-broker-dist-"));
    mkdirSync(join(projectRoot, "dist"), { recursive: true });
    await buildAll(dist);
    chmodSync(dist, 0o755);
    daemon = await lab.start(version);
    // Its namespace and store stay; systemd starts the daemon itself.
    await daemon.kill(true);
    systemd = await Systemd.start(daemon, undefined, dist);
    await systemd.run("systemctl", "start", "nix-daemon.service");
  });
  afterAll(async () => {
    systemd?.stop();
    await daemon?.stop();
    rmSync(dist, { recursive: true, force: true });
  });

  test.each(sections())("$title", async ({ title, commands }) => {
    const script = `set -e\ncd /opt/checkout\nexport PATH=$PATH:${lab.clientFolder(version)} HOME=/root\n${commands}`;
    const { code, stdout, stderr } = await systemd.run("bash", "-c", script);
    const log = code === 0 ? "" : await systemd.log();
    expect([code, code === 0 ? "" : stderr + log]).toEqual([0, ""]);
    if (title.startsWith("6.")) {
      const out = /^\/nix\/store\/\S+-outer$/m.exec(stdout)?.[0] ?? "";
      expect(out).not.toBe("");
      expect(stdout).toContain("BuildPaths");
      const references = await systemd.run(
        "env",
        "NIX_REMOTE=daemon",
        `${lab.clientFolder(version)}/nix-store`,
        "-q",
        "--references",
        out,
      );
      expect(references.stdout).toMatch(/-inner\n$/);
    }
  });

  test("nothing of it is left to others: files that root runs belong to root", async () => {
    const { stdout } = await systemd.run(
      "find",
      "/opt/nix-broker",
      "!",
      "-user",
      "root",
      "-o",
      "-perm",
      "/022",
      "!",
      "-type",
      "l",
    );
    expect(stdout).toBe("");
    expect(await systemd.show("nix-broker.service", "ActiveState")).toBe("active");
    expect(await systemd.show("nix-broker-linker.service", "ActiveState")).toBe("active");
  });
});
