/** A broker of an ordinary user's own: no configuration, no root, nothing prepared. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until, wordsOf } from "../../lab/parts.ts";
import { program } from "../../lab/program.ts";

const version = lab.versions.at(-1)!;
const env = {
  XDG_RUNTIME_DIR: "/tmp/alice-run",
  XDG_STATE_HOME: "/tmp/alice-state",
  NIX_BROKER_NODE: process.execPath,
};
const socket = `${env.XDG_RUNTIME_DIR}/nix-broker/jail/socket`;
let daemon: Daemon;
beforeAll(async () => {
  daemon = await lab.start(version);
  await daemon.run(["install", "-d", "-o", "alice", "-m", "700", env.XDG_RUNTIME_DIR, env.XDG_STATE_HOME]);
});
afterAll(() => daemon?.stop());

/** The line of README.md for a jail without an installation. */
function readmeLine(): string {
  const readme = readFileSync(join(import.meta.dirname, "../../README.md"), "utf8");
  const line = /^ {4}(dist\/nix-broker serve .*)$/m.exec(readme)?.[1] ?? "";
  expect(line).toContain("--listen $XDG_RUNTIME_DIR/nix-broker/jail/socket");
  return line.replace("dist/nix-broker", program.wrapper);
}

const asAlice = (argv: string[], more: Record<string, string> = {}) =>
  daemon.run(argv, { user: "alice", env: { ...env, ...more } });

test("README's line serves a jail; status, sandboxes and audit find it without being told where", async () => {
  const [command = "", ...args] = daemon.commandLine(["sh", "-c", `exec ${readmeLine()}`], {
    user: "alice",
    env,
  });
  const service: ChildProcess = spawn(command, args, { stdio: ["ignore", "ignore", "pipe"] });
  const log = wordsOf(service);
  const ended = once(service, "exit");
  try {
    await until(() => {
      if (service.exitCode !== null) throw new Error(log());
      return existsSync(daemon.hostPath(socket));
    });
    const added = await asAlice([`${lab.clientFolder(version)}/nix-store`, "--add", "/etc/passwd"], {
      NIX_REMOTE: `unix://${socket}`,
    });
    expect(added).toMatchObject({ code: 0 });
    const status = await asAlice([program.wrapper, "status"]);
    expect(status.stdout).toContain("/tmp/alice-state/nix-broker/audit");
    expect((await asAlice([program.wrapper, "sandboxes"])).stdout).toContain(socket);
    await until(async () =>
      (await asAlice([program.wrapper, "audit", "--op", "AddToStore"])).stdout.includes("passwd"),
    );
  } finally {
    service.kill();
    await ended;
  }
  expect(log()).not.toMatch(/"level":(?:50|60)/);
  expect((await asAlice(["find", "/tmp/alice-run", "-type", "s"])).stdout).toBe("");
});
