/** A sandbox that takes a list of Unix sockets, by the script of docs/tools.md. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { shellQuote } from "../../lab/command.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { codeBlock, place, simple } from "./fixture.ts";

const version = lab.versions.at(-1) ?? "2.34";
const folder = "/var/lib/nix-broker/tools";
let daemon: Daemon;
let broker: TestBroker;
const start = () =>
  startBroker(daemon, {
    folder,
    runtimeDir: "/run/nix-broker",
    config: codeBlock("tools.md", "The jail for all of them", "toml", "[jails.agent]"),
  });

beforeAll(async () => {
  daemon = await lab.start(version);
  const bwrap = await lab.toolInside("bwrap", "bubblewrap");
  await daemon.run(["install", "-d", "-o", "nix-broker", "/run/nix-broker"]);
  await daemon.run(["install", "-d", "-o", "alice", "/srv/project"]);
  broker = await start();
  const script = codeBlock("tools.md", "A sandbox that takes a list of Unix sockets", "sh", "sockets=");
  await place(daemon, "/var/sandbox", `#!/bin/sh\n${script.replace("exec bwrap", `exec ${bwrap}`)}`);
});
afterAll(async () => {
  await broker?.stop();
  await daemon?.stop();
});

const command = (script: string) => ["/var/sandbox", "bash", "-c", script];
const alice = { user: "alice", cwd: "/srv/project" } as const;

test("builds by the broker; the daemon's socket and the network are not there", async () => {
  const { stdout, stderr } = await daemon.run(
    command(`cat $(nix-build -E ${shellQuote(simple("in-a-list"))})
NIX_REMOTE=daemon nix-store --add /etc/passwd
nix-store --gc
ls -A /nix/var
tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '`),
    alice,
  );
  expect(stderr).toMatch(/cannot connect to socket at '?\/nix\/var\/nix\/daemon-socket\/socket/);
  expect(stderr).toContain("CollectGarbage is not allowed here");
  expect(stdout).toMatch(/^made\n0 store paths deleted, .*\nlo\n$/);
});

test("a sandbox that was there before the service was restarted reaches the new one", async () => {
  const script = `nix-store --add /etc/passwd && echo waiting && read line && nix-store --add /etc/group`;
  const child = daemon.spawn(command(script), alice);
  let said = "";
  let trouble = "";
  child.stderr?.on("data", (text: Buffer) => {
    trouble += text.toString();
  });
  await new Promise<void>((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`it ended with ${code}: ${trouble}`)));
    child.stdout?.on("data", (text: Buffer) => {
      said += text.toString();
      if (said.includes("waiting\n")) resolve();
    });
  });
  await broker.stop();
  broker = await start();
  const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
  child.stdin?.end("go\n");
  expect(await ended, trouble).toBe(0);
  expect(said).toMatch(/-passwd\nwaiting\n\/nix\/store\/\w+-group\n$/);
});
