/** A service whose unit has the broker in place of the daemon, by the lines of docs/tools.md. */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { codeBlock, simple } from "../nix/fixture.ts";
import { Systemd } from "./init.ts";

const version = lab.versions.at(-1) ?? "2.34";
let daemon: Daemon;
let systemd: Systemd;
beforeAll(async () => {
  daemon = await lab.start(version);
  const jail = codeBlock("tools.md", "The jail for all of them", "toml", "[jails.agent]");
  systemd = await Systemd.start(daemon, jail);
  await systemd.run("systemd-tmpfiles", "--create", "nix-broker.conf");
  await systemd.run("install", "-d", "-o", "alice", "/home/alice", "/run/user/alice");
});
afterAll(async () => {
  systemd?.stop();
  await daemon?.stop();
});

/** Runs a script as the page's unit, and gives what it wrote. */
async function runUnit(script: string): Promise<string> {
  const unit = codeBlock("tools.md", "A service of systemd", "ini", "[Unit]");
  writeFileSync(
    systemd.path("/etc/systemd/system/agent.service"),
    `${unit}Type=oneshot\nExecStart=/bin/sh /etc/agent.sh\nStandardOutput=truncate:/run/agent.out\nStandardError=inherit\n`,
  );
  writeFileSync(
    systemd.path("/etc/agent.sh"),
    `PATH=${lab.clientFolder(version)}:$PATH\nexport PATH\n${script}\n`,
  );
  await systemd.run("systemctl", "daemon-reload");
  const started = await systemd.run("systemctl", "start", "agent.service");
  if (started.code !== 0) throw new Error(`${started.stderr}\n${await systemd.log()}`);
  return readFileSync(systemd.path("/run/agent.out"), "utf8");
}

test("builds, and sees nothing of the daemon or the network", async () => {
  const said = await runUnit(`whoami
cat $(nix-build --no-out-link -E '${simple("in-a-unit")}')
nix-store --gc
find /nix/var
tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '
ls -A /home /run/user`);
  expect(said).toMatch(/^alice\n/);
  expect(said).toContain("\nmade\n");
  expect(said).toContain("CollectGarbage is not allowed here");
  expect(said).toContain(
    "\n/nix/var\n/nix/var/nix\n/nix/var/nix/daemon-socket\n/nix/var/nix/daemon-socket/socket\nlo\n/home:\n\n/run/user:\n",
  );
  const denied = () => systemd.run("nix-broker", "audit", "--sandbox", "agent.", "--verdict", "deny");
  await until(async () => (await denied()).stdout.includes("CollectGarbage"));
});
