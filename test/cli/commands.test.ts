import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { parseRootConfig } from "../../src/contract/root-config.ts";
import { operationNames } from "../../src/protocol/operations.ts";
import { nixBroker } from "./run-command.ts";

const folder = mkdtempSync(join(tmpdir(), "nix-broker-cli-"));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

describe("usage", () => {
  test("--version is the package's", () => {
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));
    expect(nixBroker(["--version"])).toEqual({ code: 0, stdout: `${version}\n`, stderr: "" });
  });

  test("--help and no command at all list the commands, with 0 and with 2", () => {
    const help = nixBroker(["--help"]);
    expect(help.code).toBe(0);
    for (const name of [
      "serve",
      "stdio",
      "audit",
      "policy",
      "check-config",
      "status",
      "sandboxes",
      "doctor",
    ]) {
      expect(help.stdout).toMatch(new RegExp(`^  ${name} `, "m"));
    }
    expect(nixBroker([])).toMatchObject({ code: 2, stdout: "", stderr: help.stdout });
  });

  test.each(["serve", "stdio", "audit", "policy", "check-config", "status", "sandboxes", "doctor"])(
    "%s --help has an example",
    (name) => {
      const { code, stdout } = nixBroker([name, "--help"]);
      expect(code).toBe(0);
      expect(stdout).toMatch(/^Examples?\b[^\n]*:\n {2}\S/m);
      expect(nixBroker(["help", name]).stdout).toBe(stdout);
    },
  );

  test.each([
    [["serv"], "Did you mean serve?"],
    [["serve", "--nope"], "unknown option '--nope'"],
    [["serve", "--profile", "pure"], "--profile only applies to --listen: add --listen"],
    [
      ["serve", "--listen", "/x", "--profile", "bild"],
      '--profile: there is no profile "bild"; did you mean "build"?',
    ],
    [
      ["serve", "--listen", "/x", "--view", "everything"],
      "--view: expected empty, store, build, or store paths",
    ],
    [["stdio", "--profile", "bild"], 'there is no profile "bild"'],
    [["policy", "explain"], "missing required argument 'OPERATION'"],
    [["policy", "explain", "addtostor"], 'did you mean "AddToStore"?'],
    [["audit", "--verdict", "maybe"], "Allowed choices are forward, answer, deny"],
    [["audit", "--since", "lunch"], '--since: "lunch" is not a time'],
    [["audit", "--limit", "0"], "It must be a whole number from 1 on"],
    [["check-config", "/a", "-c", "/b"], "name one file: /a, or --config /b"],
    [["jail", "--home", "--", "bash"], "--home needs an argument, and -- ends the options"],
    [["jail", "--bind", "/a", "--ro-bind", "--", "bash"], "--ro-bind needs an argument"],
    [["check-config", "--json", "--root-subset"], "--json and --root-subset cannot be combined"],
  ])("%j is a usage error that says what to do", (args, message) => {
    const { code, stdout, stderr } = nixBroker(args);
    expect(stderr).toContain(message);
    expect(stdout).toBe("");
    expect(code).toBe(2);
  });

  test("a configuration that cannot be used is told by every command, with 2", () => {
    const file = write("bad.toml", "[upstrem]\n");
    for (const args of [
      ["serve"],
      ["stdio"],
      ["policy"],
      ["audit"],
      ["check-config"],
      ["status"],
      ["sandboxes"],
    ]) {
      expect(nixBroker([...args, "--config", file])).toEqual({
        code: 2,
        stdout: "",
        stderr: `nix-broker: ${file} cannot be used:\n  line 1: upstrem: there is no such key; did you mean "upstream"?\n`,
      });
    }
  });
});

describe("check-config", () => {
  test("says so if a file is fine", () => {
    const file = write("fine.toml", '[log]\nlevel = "debug"\n');
    expect(nixBroker(["check-config", file])).toMatchObject({ code: 0, stdout: `${file} is fine.\n` });
    expect(JSON.parse(nixBroker(["check-config", file, "--json"]).stdout)).toEqual({
      file,
      ok: true,
      problems: [],
      warnings: [],
    });
  });

  test("names users and groups that this machine does not have, and limits that let nobody in", () => {
    const file = write(
      "machine.toml",
      '[runtime]\nadmin_group = "no-such-group"\n[limits]\nconnections = 0\n' +
        '[[listen]]\npath = "/run/x"\nallow_uids = ["root", "no-such-user"]\n',
    );
    const { code, stdout } = nixBroker(["check-config", file]);
    expect(code).toBe(0);
    expect(stdout).toContain(
      `${file} can be read, but on this machine:\n  runtime.admin_group: There is no group "no-such-group"`,
    );
    expect(stdout).toContain('  listen[0].allow_uids: There is no user "no-such-user" on this machine');
    expect(stdout).toContain('  limits.connections: It is 0 in the profile "build"');
    const { warnings } = JSON.parse(nixBroker(["check-config", file, "--json"]).stdout);
    expect(warnings[0]).toMatchObject({ key: "runtime.admin_group" });
  });

  test("--json lists the problems", () => {
    const file = write("wrong.toml", "[log]\nlevel = 3\n");
    const { code, stdout } = nixBroker(["check-config", file, "--json"]);
    expect(code).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ file, ok: false, problems: [{ line: 2, key: "log.level" }] });
  });

  test("--root-subset prints what the root programs accept", () => {
    const file = write(
      "root.toml",
      '[runtime]\ndir = "/run/b"\nuser = "broker"\n[hooks]\nnext_post_build_hook = "/etc/hook"\n[upstream]\ncommand = ["x"]\n',
    );
    const { code, stdout } = nixBroker(["check-config", file, "--root-subset"]);
    expect(code).toBe(0);
    expect(parseRootConfig(stdout, "root.conf")).toMatchObject({
      storeDir: "/nix/store",
      gcrootsDir: "/nix/var/nix/gcroots/nix-broker",
      upstreamSocket: "",
      nixStore: "nix-store",
      runtimeDir: "/run/b",
      serviceUser: "broker",
      nextPreBuildHook: "",
      nextPostBuildHook: "/etc/hook",
    });
  });
});

describe("policy", () => {
  test("the table names every operation of the protocol once", () => {
    const rows = nixBroker(["policy"]).stdout.split("\n");
    for (const name of operationNames) {
      expect(rows.filter((row) => row.startsWith(`${name} `))).toHaveLength(1);
    }
  });

  test("--json follows the profile", () => {
    const verdicts = (profile: string) => {
      const { operations } = JSON.parse(nixBroker(["policy", "--profile", profile, "--json"]).stdout);
      return new Map(
        operations.map((row: { operation: string; verdict: string }) => [row.operation, row.verdict]),
      );
    };
    expect(verdicts("build").get("BuildPaths")).toBe("forward");
    expect(verdicts("instantiate").get("BuildPaths")).toBe("deny");
    expect(verdicts("instantiate").get("AddToStore")).toBe("forward");
    expect(verdicts("query").get("AddToStore")).toBe("deny");
    for (const profile of ["query", "build", "agent"]) {
      expect(verdicts(profile).get("CollectGarbage")).toBe("deny");
      expect(verdicts(profile).get("IsValidPath")).toBe("answer");
    }
  });

  test("explain says what is denied, why, and which profile permits it", () => {
    const { code, stdout } = nixBroker(["policy", "explain", "addtostore", "--profile", "query"]);
    expect(code).toBe(0);
    expect(stdout).toContain('With the profile "query" it is denied.');
    expect(stdout).toContain('A profile with "add" among its operations permits it.');
    expect(nixBroker(["policy", "explain", "CollectGarbage"]).stdout).not.toContain("permits it");
  });

  test("a profile of the configuration is in force like a built-in one", () => {
    const file = write("profile.toml", '[profiles.looker]\nextends = "build"\noperations = ["query"]\n');
    const { stdout } = nixBroker(["policy", "explain", "NarFromPath", "-p", "looker", "-c", file, "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({ profile: "looker", verdict: "deny", group: "read" });
  });
});

describe("doctor", () => {
  test("where there is no Nix, it says so, and nothing of what Nix would do", () => {
    const config = write("nowhere.toml", `[upstream]\nsocket = "${folder}/daemon"\n`);
    const { code, stdout } = nixBroker(["doctor", "--config", config, "--json"], {
      NIX_CONF_DIR: `${folder}/no-nix`,
      PATH: folder,
    });
    expect(code).toBe(1);
    const { findings } = JSON.parse(stdout);
    expect(findings[0]).toMatchObject({
      state: "problem",
      topic: "Nix",
      text: `there is none on this machine: no program nix in PATH, no ${folder}/no-nix/nix.conf, no socket ${folder}/daemon; what depends on it was not checked`,
    });
    const topics = findings.map(({ topic }: { topic: string }) => topic);
    for (const topic of ["sandbox", "allowed-users", "trusted-users", "upstream"])
      expect(topics).not.toContain(topic);
  });

  test("a file that does not exist is told in one line", () => {
    const { findings } = JSON.parse(nixBroker(["doctor", "--config", `${folder}/none`, "--json"]).stdout);
    expect(findings[0].text).toBe(`${folder}/none cannot be used: there is no such file`);
  });
});
