import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, expect, test } from "vitest";
import { program } from "../../lab/program.ts";
import { nixBroker } from "./run-command.ts";

const folder = mkdtempSync(join(tmpdir(), "nix-broker-serve-"));
afterAll(() => rmSync(folder, { recursive: true }));

const config = join(folder, "config.toml");
const socket = join(folder, "socket");
writeFileSync(
  config,
  `[upstream]
socket = "${folder}/upstream"
allow_trusted = true  # root may run the tests
[runtime]
dir = "${folder}/run"
state_dir = "${folder}/state"
`,
);

test.each(["SIGTERM", "SIGINT"] as const)(
  "serve listens where --listen says, and after %s stops, takes the socket away and ends with 0",
  async (signal) => {
    const child = spawn(
      process.execPath,
      [program.cli, "serve", "--config", config, "--listen", "socket", "--profile", "pure", "--allow", "*"],
      { cwd: folder, stdio: ["ignore", "ignore", "pipe"] },
    );
    const log: { msg: string; socket?: string; profile?: string }[] = [];
    const ended = once(child, "exit");
    for await (const line of createInterface(child.stderr)) {
      log.push(JSON.parse(line));
      if (log.at(-1)?.msg !== "listening") continue;
      expect(log.at(-1)).toMatchObject({ socket, profile: "pure" });
      expect(existsSync(socket)).toBe(true);
      child.kill(signal);
    }
    expect(await ended).toEqual([0, null]);
    expect(log.at(-1)?.msg).toBe("stopped");
    expect(existsSync(socket)).toBe(false);
  },
);

test("the audit of the service can be read with the same configuration", () => {
  const { code, stdout } = nixBroker(["audit", "--config", config, "--json", "--kind", "service"]);
  expect(code).toBe(0);
  const events = stdout.trim().split("\n");
  expect(events.map((line) => JSON.parse(line).op)).toEqual(["start", "stop", "start", "stop"]);
});

test("a service that cannot start says why, with 1", () => {
  const { code, stderr } = nixBroker(["serve", "--config", config, "--listen", config, "--allow", "*"]);
  expect(code).toBe(1);
  expect(stderr).toContain(`nix-broker: ${config}`);
});
