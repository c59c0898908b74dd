/** How jails start and end: exit codes, signals, terminals, kept homes, and what is said when there can be none. */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker } from "../../lab/broker.ts";
import { type Daemon, lab, type NixVersion } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { program } from "../../lab/program.ts";
import { place, projectRoot, simple } from "../nix/fixture.ts";
import { clientConfig, JailLab } from "./fixture.ts";

const version: NixVersion = lab.versions.at(-1) ?? "2.34";
let daemon: Daemon;
let jails: JailLab;
beforeAll(async () => {
  daemon = await lab.start(version, clientConfig(version));
  jails = await JailLab.of(daemon);
});
afterAll(() => daemon?.stop());

const folders = () => jails.asRoot("ls -d /tmp/nix-broker-jail-* 2> /dev/null || true");

/** The command lines of alice's processes beside the daemon. */
function running(): string[] {
  return daemon.processes().flatMap((pid) => {
    try {
      const isAlices = /^Uid:\s+41901\b/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
      return isAlices ? [readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")] : [];
    } catch {
      return [];
    }
  });
}

describe("exit codes", () => {
  test.each([
    ["exit 0", 0],
    ["exit 7", 7],
    ["kill -TERM $$", 143],
    ["kill -KILL $$", 137],
  ])("%s: %i", async (line, code) => {
    expect(await jails.bash(line)).toMatchObject({ code });
  });

  test("a command that is not there: 127, and the jail says so", async () => {
    const { code, stderr } = await jails.run(["no-such-command"]);
    expect(code).toBe(127);
    expect(stderr).toContain("no-such-command");
  });

  test("arguments arrive as they are, and standard input is the command's", async () => {
    const { stdout } = await jails.run(["printf", "<%s>", "a b", "", "$HOME", "--net"]);
    expect(stdout).toBe("<a b><><$HOME><--net>");
    const child = jails.spawn(["cat"]);
    const said = once(child.stdout!, "data");
    child.stdin?.end("to the jail");
    expect(String(await said)).toBe("to the jail");
  });
});

describe("surroundings", () => {
  const works = async (options: Parameters<JailLab["bash"]>[1], line = "echo works; pwd") =>
    expect(await jails.bash(line, options)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("works"),
    });

  test.each([
    ["TMPDIR is the project", { TMPDIR: "/home/alice/project" }],
    ["TMPDIR does not exist", { TMPDIR: "/nonexistent" }],
    ["XDG_RUNTIME_DIR is another user's", { XDG_RUNTIME_DIR: "/root" }],
    ["XDG_RUNTIME_DIR does not exist", { XDG_RUNTIME_DIR: "/nonexistent" }],
  ])("%s: a jail all the same", (_, env) => works({ env }));

  test("a folder whose name has blanks and letters of all kinds", async () => {
    const cwd = "/home/alice/a b/ünï \"☃'";
    await daemon.run(["mkdir", "-p", cwd], { user: "alice" });
    await works({ cwd }, `echo works; nix-build -E '${simple("odd")}' && test -e ./result`);
    expect((await jails.bash("pwd", { cwd })).stdout.trim()).toBe(cwd);
  });

  test("flakes are found by the names of the user's registry", async () => {
    const registry =
      '{ "flakes": [{ "from": { "type": "indirect", "id": "mine" }, "to": { "type": "path", "path": "/home/alice/project/mine" } }], "version": 2 }';
    await jails.asAlice(
      "mkdir -p ~/.config/nix mine; cat > ~/.config/nix/registry.json; echo '{ outputs = _: { a = \"works\"; }; }' > mine/flake.nix",
      registry,
    );
    await works({}, "nix eval --raw mine#a");
    await jails.asRoot("rm -r /home/alice/.config/nix /home/alice/project/mine");
  });
});

describe("the end of a jail leaves nothing behind", () => {
  // Not only children: what makes itself a session of its own ends, too.
  const command = ["bash", "-c", "echo up; setsid sleep 987 & sleep 986; :"];

  test.each([
    ["SIGTERM", 143],
    ["SIGINT", 130],
    ["SIGHUP", 129],
    ["SIGKILL", null],
  ] as const)("%s", async (signal, code) => {
    const child = jails.spawn(command);
    await once(child.stdout!, "data");
    await until(async () => (await folders()) === "");
    await until(() => running().some((line) => line.startsWith("sleep 987")));
    const closed = once(child, "close");
    child.kill(signal);
    expect((await closed)[0]).toBe(code);
    await until(() => running().length === 0);
    expect(await folders()).toBe("");
  });

  test("the end of the process that started it", async () => {
    const child = daemon.spawn(
      [
        "bash",
        "-c",
        '"$@" & wait',
        "bash",
        "env",
        "PATH=/var/bwrap:/usr/bin:/bin",
        ...jails.commandLine(command),
      ],
      { user: "alice", cwd: "/home/alice/project" },
    );
    await once(child.stdout!, "data");
    child.kill("SIGKILL");
    await until(() => running().length === 0);
    expect(await folders()).toBe("");
  });
});

describe("at a terminal", () => {
  const atTerminal = (input: string, command: readonly string[]) =>
    daemon.run(["perl", join(projectRoot, "test/jail/terminal.pl"), ...command], {
      user: "alice",
      cwd: "/home/alice/project",
      env: { PATH: "/var/bwrap:/usr/bin:/bin", TERM: "dumb" },
      input,
    });
  /** Types a character into the terminal, as a shell would read it: TIOCSTI, and the same with more bits than ioctl looks at. */
  const types = (command: string) =>
    `perl -e 'print ioctl(STDIN, ${command}, my $c = "x") ? "typed" : "not typed: $!", "\\n"'`;

  test("a shell has job control", async () => {
    const { stdout } = await atTerminal(
      "sleep 100 &\njobs; fg\n\u0003echo after $?\nexit 5\n",
      jails.commandLine(["bash", "--norc", "-i"]),
    );
    expect(stdout).not.toContain("no job control");
    expect(stdout).toMatch(/\[1\]\+? +Running +sleep 100/);
    expect(stdout).toContain("after 130");
    expect(stdout).toContain("ended with 5");
  });

  // As the terminal does it: all processes of the group get the signal, bwrap and nix-broker among them.
  const pressesCtrlC = "kill -INT 0";

  test("Ctrl-C is for the command, which may go on", async () => {
    const takes = `trap "echo caught" INT; ${pressesCtrlC}; echo goes on; exit 3`;
    const { stdout } = await atTerminal("", jails.commandLine(["bash", "-c", takes]));
    expect(stdout).toMatch(/caught\s+goes on/);
    expect(stdout).toContain("ended with 3");
  });

  test("a jail that Ctrl-C ended tells the shell so, and leaves nothing behind", async () => {
    const { stdout } = await atTerminal(
      "",
      jails.commandLine(["bash", "-c", `${pressesCtrlC}; echo goes on`]),
    );
    expect(stdout).not.toContain("goes on");
    expect(stdout).toContain("ended by signal 2");
    await until(() => running().length === 0);
  });

  test.each(["0x5412", "0x7f00005412", "0x541c"])(
    "nothing in it can type into the terminal: ioctl %s",
    async (command) => {
      const { stdout } = await atTerminal("", jails.commandLine(["bash", "-c", types(command)]));
      expect(stdout).toContain("not typed: Operation not permitted");
    },
  );

  test("the keyring of the user's session is out of reach", async () => {
    const keyctl = { x64: 250, arm64: 219 }[process.arch as string];
    const asks = [
      "perl",
      "-e",
      `print syscall(${keyctl}, 0, -3, 1) < 0 ? "no keyring: $!" : "a keyring", "\n"`,
    ];
    expect((await daemon.run(asks, { user: "alice" })).stdout).toBe("a keyring\n");
    expect((await jails.run(asks)).stdout).toBe("no keyring: Operation not permitted\n");
  });

  test("without a terminal as standard input it has none at all", async () => {
    const { stdout } = await atTerminal("", [
      "sh",
      "-c",
      '"$@" < /dev/null',
      "sh",
      ...jails.commandLine(["sh", "-c", ": < /dev/tty"]),
    ]);
    expect(stdout).toContain("No such device or address");
  });
});

describe("a kept home", () => {
  test("has what it had, and its links are roots until they are removed", async () => {
    const args = ["--home", "/home/alice/kept"];
    const first = await jails.bash(
      `echo mine > ~/file; nix-build -o ~/result -E '${simple("kept")}' 2> /dev/null; nix-env -p ~/profile -i $(readlink ~/result) 2> /dev/null; realpath ~/profile`,
      { args },
    );
    const [kept = "", profile = ""] = first.stdout.trim().split("\n");
    await jails.collectGarbage();
    for (const path of [kept, profile]) expect(await jails.isValid(path), path).toBe(true);
    expect((await jails.bash(`cat ~/file ~/result`, { args })).stdout).toBe("mine\nmade\n");
    await jails.asAlice("rm -r ~/kept/result ~/kept/profile*");
    await jails.collectGarbage();
    for (const path of [kept, profile]) expect(await jails.isValid(path), path).toBe(false);
  });

  test("more roots than limits.gc_roots are refused", async () => {
    await jails.asAlice("cat > ../few.toml", '[profiles.few]\nextends = "agent"\nlimits.gc_roots = 2\n');
    const { stderr, code } = await jails.bash(
      `for name in a b c; do nix-build -o $name -E "derivation { name = \\"$name\\"; system = builtins.currentSystem; builder = \\"/bin/sh\\"; args = [ \\"-c\\" \\"echo > \\$out\\" ]; }" || exit 3; done`,
      { args: ["--config", "/home/alice/few.toml", "--profile", "few"] },
    );
    expect(code).toBe(3);
    expect(stderr).toContain("no more than 2 roots of the garbage collector (limits.gc_roots)");
  });
});

test("what --print prints runs as a jail, with a broker at the socket that it names, never the daemon itself", async () => {
  const args = ["--print", "--env", "SECRET"];
  const env = { PATH: "/var/bwrap:/usr/bin:/bin", SECRET: "the secret" };
  const { stdout, stderr } = await jails.bash("nix-store --gc; echo $SECRET $HOME", { args, env });
  expect(stdout).not.toContain("the secret");
  const [, folder = ""] = /--ro-bind (\S+) \/nix\/var\/nix\/daemon-socket \\/.exec(stdout) ?? [];
  expect(folder).toMatch(/^\/home\/alice\/.*\/jail$/);
  expect(stderr).toContain(
    `First run a broker, which stays: nix-broker serve --listen ${folder}/socket --profile agent --view store --allow alice`,
  );
  await jails.asAlice("touch '../its own.toml'");
  const its = await jails.bash("true", { args: ["--print", "--config", "../its own.toml"], env });
  expect(its.stderr).toContain("nix-broker serve --config '/home/alice/its own.toml' --listen /");
  const broker = await startBroker(daemon, {
    user: "alice",
    profile: "agent",
    view: "store",
    allow: "alice",
  });
  try {
    await jails.asAlice(`mkdir -p ${folder} && ln ${broker.socket} ${folder}/socket`);
    const ran = await daemon.run(["bash"], { user: "alice", cwd: "/home/alice/project", env, input: stdout });
    expect(ran.stderr).toContain("CollectGarbage is not allowed here");
    expect(ran.stdout).toContain("the secret /home/alice\n");
  } finally {
    await broker.stop();
  }
});

test("without a service, doctor checks what a jail needs, and status advises none of systemd's", async () => {
  const run = (command: string, env = {}) =>
    daemon.run([process.execPath, program.cli, command], {
      user: "alice",
      cwd: "/home/alice/project",
      env: { PATH: "/var/bwrap:/usr/bin:/bin", ...env },
    });
  const installed = await run("doctor");
  expect(installed.stdout).toMatch(
    /^WARNING +service: .*; jails do not need it\n.*→ as root: systemctl start/m,
  );
  expect(installed).toMatchObject({ code: 0, stdout: expect.stringContaining("\n0 problems, ") });
  // As if nothing were installed.
  await jails.asRoot("mv /var/lib/nix-broker /var/lib/set-aside");
  try {
    const well = await run("doctor");
    expect(well).toMatchObject({ code: 0 });
    for (const topic of ["service", "upstream", "trusted-users", "bubblewrap", "state"])
      expect(well.stdout).toMatch(new RegExp(`^ok +${topic}: `, "m"));
    const ill = await run("doctor", { PATH: "/usr/bin:/bin", XDG_STATE_HOME: "/proc/none" });
    expect(ill.code).toBe(1);
    expect(ill.stdout).toMatch(/^PROBLEM +bubblewrap: .*\n.*install the package bubblewrap/m);
    expect(ill.stdout).toMatch(/^PROBLEM +state: .*\n.*set XDG_STATE_HOME/m);
    const { code, stderr } = await run("status");
    expect(code).toBe(3);
    expect(stderr).toContain("A jail needs no service");
    expect(stderr).not.toContain("systemctl");
  } finally {
    await jails.asRoot("mv /var/lib/set-aside /var/lib/nix-broker");
  }
});

test("the jail's lines are printed without bubblewrap, too", async () => {
  const { code, stdout } = await jails.bash("echo", { args: ["--print"], hasBwrap: false });
  expect(code).toBe(0);
  expect(stdout).toMatch(/^env -i \/usr\/bin\/bwrap \\$/m);
});

test("wrong usage: 2", async () => {
  expect(await jails.bash("echo ran", { args: ["--nte"] })).toMatchObject({ code: 2, stdout: "" });
});

describe("where there can be no jail, it says why", () => {
  const refused = async (words: string, options: Parameters<JailLab["bash"]>[1]) => {
    const { code, stderr, stdout } = await jails.bash("echo ran", options);
    expect(stderr).toContain(words);
    expect({ code, stdout }).toEqual({ code: 125, stdout: "" });
  };

  test("bubblewrap is missing", () => refused("install bubblewrap", { hasBwrap: false }));
  test("root", () => refused("sudo -u USER nix-broker jail", { user: "root" }));
  test("the current folder is the home", () => refused("is or contains your home", { cwd: "/home/alice" }));
  test("nothing can be recorded", () =>
    refused("set XDG_STATE_HOME", { env: { XDG_STATE_HOME: "/proc/none" } }));
  test("a variable that is not there", () =>
    refused("--env MISSING: there is no such variable", { args: ["--env", "MISSING"] }));
  test("a wrong URL pattern", () =>
    refused("--allow-url x: expected scheme://", { args: ["--allow-url", "x"] }));
  test("a profile that is not there", () =>
    refused('there is no profile "agnet"', { args: ["--profile", "agnet"] }));

  test("bubblewrap fails", async () => {
    await place(daemon, "/var/failing/bwrap", "#!/bin/sh\necho 'bwrap: no' >&2\nexit 1\n");
    const PATH = "/var/failing:/usr/bin:/bin";
    await refused("bubblewrap could not make the jail", { env: { PATH } });
    await refused("this is a container", { env: { PATH, container: "podman" } });
    expect(await folders()).toBe("");
  });

  test("the daemon's socket is for a group, as on Debian", async () => {
    const folder = "/nix/var/nix/daemon-socket";
    await jails.asRoot(`chgrp nixbld ${folder} && chmod 750 ${folder}`);
    try {
      await refused("members of the group nixbld", {});
      const { stdout } = await daemon.run([process.execPath, program.cli, "doctor"], {
        user: "alice",
        cwd: "/home/alice/project",
      });
      expect(stdout).toMatch(
        /^PROBLEM +upstream: .*EACCES.*\n.*as root: usermod -aG nixbld alice, and log in again$/m,
      );
    } finally {
      await jails.asRoot(`chgrp root ${folder} && chmod 755 ${folder}`);
    }
  });

  test("the daemon trusts the user, unless that is said to be fine; and no daemon runs", async () => {
    await daemon.restart("trusted-users = root alice");
    await refused("the nix-daemon trusts you", {});
    expect(
      await jails.bash("nix-store --gc > /dev/null 2>&1; echo ran", { args: ["--allow-trusted"] }),
    ).toMatchObject({ code: 0, stdout: "ran\n" });
    await daemon.restart("");
    await daemon.kill();
    await refused("Is Nix installed for all users, and nix-daemon running", {});
    await refused("In a build of Nix there is none", { env: { NIX_BUILD_TOP: "/build" } });
    await daemon.restart();
  });
});
