/** The manual pages and the shells' completions, as the programs that read them see them. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { writeManual } from "../../scripts/manual/write.ts";
import { entries } from "../../src/cli/entries.ts";

const folder = mkdtempSync(join(tmpdir(), "nix-broker-manual-"));
beforeAll(() => writeManual(folder));
afterAll(() => rmSync(folder, { recursive: true }));

const read = (name: string): string => readFileSync(join(folder, name), "utf8");
const completion = (name: string): string => join(folder, "completions", name);

describe("manual pages", () => {
  test("there is one for each command, one for all, and one for the configuration", () => {
    expect(readdirSync(join(folder, "man")).sort()).toEqual(
      [
        "nix-broker.1",
        "nix-broker.toml.5",
        ...Object.keys(entries).map((name) => `nix-broker-${name}.1`),
      ].sort(),
    );
  });

  test("mandoc has nothing to say about them", async () => {
    const mandoc = await lab.tool("mandoc");
    const pages = readdirSync(join(folder, "man")).map((name) => join(folder, "man", name));
    // Below a warning are matters of style, such as long lines.
    const { stdout } = spawnSync(mandoc, ["-Tlint", "-Wwarning", ...pages], { encoding: "utf8" });
    // Pages of ours that refer to each other are not installed on this machine.
    expect(
      stdout.split("\n").filter((line) => line !== "" && !line.includes("referenced manual not found")),
    ).toEqual([]);
  });

  test("they say what the definitions say: options, exit codes, keys, in the words of the help", async () => {
    const mandoc = await lab.tool("mandoc");
    const text = (page: string): string =>
      spawnSync(mandoc, ["-Tascii", "-Owidth=200", join(folder, "man", page)], { encoding: "utf8" })
        .stdout.replaceAll(/.\x08/g, "")
        .replaceAll(/\s+/g, " ");
    expect(text("nix-broker-serve.1")).toContain("-l, --listen <PATH> open a static socket at this path");
    expect(text("nix-broker-status.1")).toContain("EXIT STATUS Exit codes: 0 all is well");
    expect(text("nix-broker-audit.1")).toContain("nix-broker audit --verdict deny --since 1h");
    expect(text("nix-broker-audit.1")).toMatch(/AUDIT VERIFY .* AUDIT EXPORT/);
    expect(text("nix-broker.1")).toContain("nix-broker-check-config(1) check a configuration file");
    expect(text("nix-broker.toml.5")).toMatch(
      /\[\[LISTEN\]\].* allow_uids \(.*default: \["@nixbld"\]\) Who may connect/i,
    );
  });
});

/** What an interactive bash runs after these keys; each tab completes. */
function typed(keys: string): string {
  // In a terminal of its own, where readline completes; a function says what would have been run.
  const rc = join(folder, "bashrc");
  writeFileSync(rc, `source ${completion("nix-broker.bash")}\nnix-broker() { echo "RAN<$*>"; exit; }\n`);
  const script = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", HISTFILE="/dev/null", INPUTRC="/dev/null")
    os.execvp("bash", ["bash", "--rcfile", sys.argv[1], "-i"])
os.write(fd, (sys.argv[2] + "\\n").encode())
out = b""
while True:
    try: part = os.read(fd, 65536)
    except OSError: break
    if not part: break
    out += part
sys.stdout.buffer.write(out)
`;
  const { stdout } = spawnSync("python3", ["-c", script, rc, keys], {
    encoding: "utf8",
    cwd: folder,
  });
  return /RAN<(.*)>/.exec(stdout)?.[1] ?? stdout;
}

describe("completions", () => {
  test.each([
    ["a command", "nix-broker stat\t", "status "],
    ["an option", "nix-broker audit --verd\t", "audit --verdict "],
    ["its value, after another one", "nix-broker aud\t--verd\tde\t", "audit --verdict deny "],
    ["a subcommand and its option", "nix-broker audit ver\t--st\t", "audit verify --store "],
    ["a profile", "nix-broker policy -p ag\t", "policy -p agent "],
    ["an operation", "nix-broker policy explain AddToStoreN\t", "policy explain AddToStoreNar "],
    ["a command of the overview for help", "nix-broker help sand\t", "help sandboxes "],
    ["a file", "nix-broker check-config man/nix-broker-stat\t", "check-config man/nix-broker-status.1 "],
    ["a program for a jail", "nix-broker jail -- readli\t", "jail -- readlink "],
  ])("bash completes %s", (_what, keys, expected) => {
    expect(typed(keys)).toBe(expected.trimEnd());
  });

  test("zsh and fish can parse theirs", async () => {
    const zsh = spawnSync(await lab.tool("zsh"), ["-n", completion("_nix-broker")], { encoding: "utf8" });
    expect({ code: zsh.status, stderr: zsh.stderr }).toEqual({ code: 0, stderr: "" });
    const fish = spawnSync(await lab.tool("fish"), ["--no-execute", completion("nix-broker.fish")], {
      encoding: "utf8",
      env: { PATH: process.env.PATH, HOME: folder },
    });
    expect({ code: fish.status, stderr: fish.stderr }).toEqual({ code: 0, stderr: "" });
  });

  test("they name every command and option", () => {
    for (const name of ["nix-broker.bash", "_nix-broker", "nix-broker.fish"]) {
      const text = read(`completions/${name}`);
      for (const command of Object.keys(entries)) expect(text).toContain(command);
      for (const option of ["listen", "verdict", "root-subset", "allow-url"]) expect(text).toContain(option);
    }
  });
});
