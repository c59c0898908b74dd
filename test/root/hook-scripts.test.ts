/** The hooks as Nix runs them, the scripts and what is compiled: the same cases for all of them. */
import { spawnSync } from "node:child_process";
import {
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { buildHooks, compileHook } from "../../scripts/build-hooks.ts";

type When = "pre" | "post";

const built = mkdtempSync(join(tmpdir(), "nix-broker-built-hooks-"));
afterAll(() => rmSync(built, { recursive: true, force: true }));

function place(name: string): string {
  const made = join(built, name);
  mkdirSync(made);
  copyFileSync(
    fileURLToPath(new URL("../../src/root/nix-broker-root", import.meta.url)),
    join(made, "nix-broker-root"),
  );
  return made;
}

const scripts = place("scripts");
buildHooks(scripts, "/nonexistent/cc");

const compiled = place("compiled");
const isCompiled = buildHooks(compiled);
const checked = place("checked");
const isChecked =
  buildHooks(checked) &&
  ["pre", "post"].every((when) =>
    compileHook(when, join(checked, `${when}-build-hook`), process.env.CC || "cc", [
      ...["-g", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    ]),
  );

/** How each is called. */
const programs: Readonly<Record<string, (when: When) => readonly string[]>> = {
  ...Object.fromEntries(
    ["dash", "bash"]
      .filter((shell) => spawnSync(shell, ["-c", ":"]).status === 0)
      .map((shell) => [shell, (when: When) => [shell, join(scripts, `${when}-build-hook.sh`)]]),
  ),
  ...(isCompiled ? { "the compiled one": (when: When) => [join(compiled, `${when}-build-hook`)] } : {}),
  ...(isChecked
    ? { "the compiled one with sanitizers": (when: When) => [join(checked, `${when}-build-hook`)] }
    : {}),
};

let folder: string;
const inFolder = (...names: string[]): string => join(folder, ...names);
const asking = 'Derive(("requiredSystemFeatures","nix-broker"))';

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-hooks-"));
  mkdirSync(inFolder("run/derivations"), { recursive: true });
  writeFileSync(inFolder("x.drv"), asking);
  writeFileSync(inFolder("run/derivations/x.drv"), "");
  writeFileSync(inFolder("next"), nextHook(), { mode: 0o755 });
  writeFileSync(inFolder("node"), `#!/bin/sh\necho asked\necho asked >> ${folder}/log\n`, { mode: 0o755 });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** Says how it was called: on stdout, and in a file for when that is closed. */
function nextHook(): string {
  return `#!/bin/sh
text=$(printf '%s;' next "$#" "$@" "$DRV_PATH" "$NIX_DERIVATION_V4" "$PATH" "$(cat 2>&-)")
echo "$text" >> ${folder}/log
echo "$text"
exit 3
`;
}

interface Call {
  /** The lines of root.conf, or nothing to have none. */
  readonly config?: string | Buffer;
  readonly node?: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** A command that runs what follows it. */
  readonly through?: readonly string[];
}

function hook(call: Call, when: When, program: (when: When) => readonly string[]) {
  rmSync(inFolder("log"), { force: true });
  if (call.config !== undefined) writeFileSync(inFolder("root.conf"), call.config);
  const args = call.args ?? (when === "pre" ? [inFolder("x.drv"), "/x.drv.chroot"] : []);
  const [command = "", ...argv] = [...(call.through ?? []), ...program(when), ...args];
  const { status, stdout, stderr } = spawnSync(command, argv, {
    encoding: "utf8",
    input: "given",
    timeout: 60_000,
    env: {
      PATH: process.env.PATH,
      DRV_PATH: inFolder("x.drv"),
      NIX_BROKER_ROOT_CONFIG: inFolder("root.conf"),
      NIX_BROKER_NODE: call.node ?? inFolder("node"),
      // Determinate Nix gives the derivation as JSON, too.
      NIX_DERIVATION_V4: inFolder("derivation.json"),
      ...call.env,
    },
  });
  const log = existsSync(inFolder("log")) ? readFileSync(inFolder("log"), "utf8") : "";
  return { status, stdout, stderr, log };
}

const brokenNodes = { missing: "/nonexistent/node", "killed at once": "killed" };
const runtime = (): string => `runtime_dir=${folder}/run\n`;

/** What a build gets that asks for a sandbox and cannot have one. */
function noDaemon(): string {
  const made = inFolder("run/no-daemon");
  return `extra-sandbox-paths\n/nix/var/nix/daemon-socket=${made}/socket.d\n/etc/nix=${made}/etc\n\n`;
}

const padding = "another text, ".repeat(2000);
/** The feature begins this many bytes before the end of a piece that is read at once. */
const across = (before: number) => `${"x".repeat(64 * 1024 - before)}nix-broker`;
const derivations: Readonly<Record<string, readonly [string | Buffer, string | Buffer]>> = {
  "a usual one": ["Derive(names nix-broker)", "Derive(names none of us)"],
  "a long one, at its end": [`Derive(${padding}nix-broker)`, `Derive(${padding}nix-brok`],
  "one that ends with our name": ["Derive(nix-broker", "Derive(nix-broke"],
  "one that has our name alone, or nothing": ["nix-broker", ""],
  "one with a byte 0 and one that is no UTF-8": [
    Buffer.from("Derive(\0\xffnix-broker)", "latin1"),
    Buffer.from("Derive(\0\xffnix-brok\0er)", "latin1"),
  ],
  "one of lines": ["\nnix-broker\n", "nix-\nbroker\n"],
  "one that is longer than what we parse": [
    Buffer.concat([Buffer.alloc(17 * 1024 * 1024, "y"), Buffer.from("nix-broker")]),
    Buffer.alloc(17 * 1024 * 1024, "y"),
  ],
  ...Object.fromEntries(
    [0, 1, 5, 9, 10].map((before) => [
      `one with our name ${before} bytes before 64 KiB`,
      [across(before), across(before).slice(0, -1)] as const,
    ]),
  ),
};

/** What is in place of a derivation, and whether the real program has to look. */
const noDerivations: Readonly<Record<string, readonly [() => void, boolean]>> = {
  nothing: [() => {}, false],
  "a folder": [() => mkdirSync(inFolder("x.drv")), true],
  "a pipe that nobody writes to": [() => spawnSync("mkfifo", [inFolder("x.drv")]), true],
  "a link to what never ends": [() => symlinkSync("/dev/zero", inFolder("x.drv")), true],
  "a link to nothing": [() => symlinkSync("/nonexistent", inFolder("x.drv")), false],
  "a link to itself": [() => symlinkSync("x.drv", inFolder("x.drv")), false],
  "a link to a derivation": [
    () => {
      writeFileSync(inFolder("other"), asking);
      symlinkSync("other", inFolder("x.drv"));
    },
    true,
  ],
};

/** Lines of root.conf in which the last of "next" counts, if it should be run. */
const configs: Readonly<Record<string, readonly [(next: string) => string | Buffer, boolean]>> = {
  "nothing else": [(next) => next, true],
  "no end of line": [(next) => next.trimEnd(), true],
  "comments, spaces, empty lines and other keys": [
    (next) => `# x\n\n  \nservice_user=a=b\nnext\n${next}\nmax_queue=1\n`,
    true,
  ],
  "another one before": [(next) => `${next.replace(/=.*/, "=/nonexistent")}${next}`, true],
  "an empty one afterwards": [(next) => `${next}${next.replace(/=.*/, "=")}`, false],
  "a space before": [(next) => ` ${next}`, false],
  "a key that begins the same": [(next) => next.replace("=", "s="), false],
  "more than 64 KiB": [(next) => `${"# a long comment\n".repeat(5000)}${next}`, true],
  "a byte 0": [(next) => Buffer.from(`# \0\n${next}`), true],
};

describe.each(Object.entries(programs))("%s", (_, program) => {
  const pre = (call: Call = {}) => hook(call, "pre", program);
  const run = (when: When, call: Call = {}) => hook(call, when, program);
  const withNext = (when: When, next = inFolder("next")): string => `next_${when}_build_hook=${next}\n`;
  /** A build that does not concern us, and what the next hook then says. */
  const notOurs = () => {
    writeFileSync(inFolder("x.drv"), "Derive(other)");
    rmSync(inFolder("run/derivations/x.drv"), { force: true });
  };
  const nextSays = (...args: string[]) =>
    `${["next", args.length, ...args, inFolder("x.drv"), inFolder("derivation.json"), process.env.PATH, "given"].join(";")};\n`;

  test.each(
    (["pre", "post"] as const).flatMap((when) =>
      Object.entries(brokenNodes).map((node) => [when, ...node] as const),
    ),
  )("the %s-build hook does not fail when its Node is %s", (when, what, node) => {
    if (node === "killed") writeFileSync(inFolder(node), "#!/bin/sh\nkill -9 $$\n", { mode: 0o755 });
    const path = node.startsWith("/") ? node : inFolder(node);
    const alone = run(when, { config: runtime(), node: path });
    expect(alone.status, what).toBe(0);
    expect(alone.stdout).toBe(when === "pre" ? noDaemon() : "");
    expect(alone.stderr).toContain(`nix-broker: the ${when}-build hook ended with`);
    const chained = run(when, { config: `${runtime()}${withNext(when)}`, node: path });
    expect(chained.status).toBe(3);
    expect(chained.stdout).toMatch(/^next;/m);
    expect(chained.stdout.startsWith(when === "pre" ? noDaemon() : "next;")).toBe(true);
  });

  test("where its program failed, the pre-build hook maps nothing into what does not ask for a sandbox, or has no chroot", () => {
    const broken = { config: runtime(), node: brokenNodes.missing };
    expect(pre({ ...broken, args: [inFolder("x.drv"), ""] }).stdout).toBe("");
    writeFileSync(inFolder("x.drv"), "Derive(a text about nix-broker)");
    expect(pre(broken).stdout).toBe("");
    expect(readdirSync(inFolder("run"))).toEqual(["derivations"]);
  });

  test("G8: where its program failed and no folder can be made, the pre-build hook fails the build", () => {
    writeFileSync(inFolder("file"), "");
    const { status, stdout, stderr } = pre({
      config: `runtime_dir=${folder}/file\n`,
      node: brokenNodes.missing,
    });
    expect(status).toBe(1);
    expect(stdout).toBe("");
    expect(stderr).toContain("no-daemon cannot be made, so this build is refused");
  });

  test("what a program printed that then failed does not count", () => {
    writeFileSync(inFolder("node"), "#!/bin/sh\necho extra-sandbox-paths\nexit 1\n", { mode: 0o755 });
    expect(pre({ config: runtime() }).stdout).toBe(noDaemon());
  });

  test.each(Object.entries(derivations))(
    "of %s the pre-build hook asks the real program, if it names us alone",
    (_what, texts) => {
      const asked = texts.map((text) => {
        writeFileSync(inFolder("x.drv"), text);
        return pre({ config: "" });
      });
      expect(asked).toMatchObject([
        { status: 0, stdout: "asked\n\n" },
        { status: 0, stdout: "" },
      ]);
    },
  );

  test.each(Object.entries(noDerivations))("where the derivation is %s", (_what, [make, isAsked]) => {
    rmSync(inFolder("x.drv"));
    make();
    expect(pre({ config: "" })).toMatchObject({ status: 0, stdout: isAsked ? "asked\n\n" : "" });
  });

  test.each([[[]], [[""]], [["/"]], [["x".repeat(5000)]], [["/nonexistent/x.drv"]]])(
    "with the arguments %j, of which none is a derivation, the next hook runs",
    (args) => {
      const isAsked = args[0] === "/";
      const { status, stdout } = pre({ config: withNext("pre"), args });
      expect({ status, stdout }).toEqual({
        status: 3,
        stdout: `${isAsked ? "asked\n\n" : ""}${nextSays(...args)}`,
      });
    },
  );

  test.each(["pre", "post"] as const)(
    "after the real program, and without it, the next %s-build hook runs",
    (when) => {
      const config = `${runtime()}${withNext(when)}`;
      const args = when === "pre" ? [inFolder("x.drv"), "a b\n*'\"\\ü", ""] : undefined;
      const call = { config, ...(args && { args }) };
      const ours = run(when, call);
      notOurs();
      const others = run(when, call);
      expect(others).toEqual({
        status: 3,
        stdout: nextSays(...(args ?? [])),
        stderr: "",
        log: nextSays(...(args ?? [])),
      });
      // What the program of the post-build hook reads from stdin, it takes from nobody.
      expect(ours).toMatchObject({ status: 3, log: `asked\n${others.log}` });
    },
  );

  test.each(
    (["pre", "post"] as const).flatMap((when) =>
      Object.entries(configs).map((config) => [when, ...config] as const),
    ),
  )("a %s-build hook whose root.conf has %s", (when, _what, [text, runs]) => {
    notOurs();
    const { status, stdout } = run(when, { config: text(withNext(when)) });
    expect({ status, stdout }).toEqual(
      runs
        ? { status: 3, stdout: nextSays(...(when === "pre" ? [inFolder("x.drv"), "/x.drv.chroot"] : [])) }
        : { status: 0, stdout: "" },
    );
  });

  test.each(["pre", "post"] as const)(
    "root.conf of somebody else, a folder, or none: no next %s-build hook",
    (when) => {
      notOurs();
      writeFileSync(inFolder("root.conf"), withNext(when));
      chownSync(inFolder("root.conf"), 1, 1);
      expect(run(when)).toMatchObject({ status: 0, stdout: "", log: "" });
      rmSync(inFolder("root.conf"));
      expect(run(when)).toMatchObject({ status: 0, stdout: "", log: "" });
      expect(run(when, { env: { NIX_BROKER_ROOT_CONFIG: "" } })).toMatchObject({ status: 0, log: "" });
      mkdirSync(inFolder("root.conf"));
      expect(run(when)).toMatchObject({ status: 0, stdout: "", log: "" });
    },
  );

  test.each(["pre", "post"] as const)(
    "a next %s-build hook that is missing, no program, a bare name, or has no first line",
    (when) => {
      notOurs();
      const status = (next: string, env = {}) => run(when, { config: withNext(when, next), env }).status;
      expect(status("/nonexistent/next")).toBe(127);
      writeFileSync(inFolder("text"), "text", { mode: 0o644 });
      expect(status(inFolder("text"))).toBe(126);
      expect(status("next", { PATH: `${folder}:${process.env.PATH}` })).toBe(3);
      writeFileSync(inFolder("bare"), "exit 5\n", { mode: 0o755 });
      expect(status(inFolder("bare"))).toBe(5);
    },
  );

  test.each([
    ["/elsewhere/x.drv", true],
    ["x.drv", true],
    ["/elsewhere/y.drv", false],
    ["", true],
    ["/", true],
    [undefined, true],
    ["/elsewhere/..", true],
    [`/${"x".repeat(300)}`, false],
    [`/${"x".repeat(9000)}`, false],
  ])("the post-build hook after %j", (path, isAsked) => {
    expect(run("post", { config: runtime(), env: { DRV_PATH: path } })).toMatchObject({
      status: 0,
      log: isAsked ? "asked\n" : "",
    });
  });

  test.each(["pre", "post"] as const)("a %s-build hook without stdin, stdout and stderr", (when) => {
    const closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"];
    const call = { config: `${runtime()}${withNext(when)}`, through: closed };
    expect(run(when, call).log).toMatch(/^asked\nnext;/);
    notOurs();
    const { status, log } = run(when, call);
    expect({ status, log }).toEqual({ status: 3, log: expect.stringMatching(/^next;/) });
  });
});

test("without a compiler, what nix.conf names is the script", () => {
  for (const when of ["pre", "post"])
    expect(readlinkSync(join(scripts, `${when}-build-hook`))).toBe(`${when}-build-hook.sh`);
  const link = (when: When) => [join(scripts, `${when}-build-hook`)];
  expect(hook({ config: runtime() }, "pre", link)).toMatchObject({ status: 0, stdout: "asked\n\n" });
});

describe.runIf(isCompiled)("what is compiled, without the script", () => {
  let alone: string;
  beforeEach(() => {
    alone = inFolder("alone");
    mkdirSync(alone);
    for (const when of ["pre", "post"])
      copyFileSync(join(compiled, `${when}-build-hook`), join(alone, `${when}-build-hook`));
  });
  const program = (when: When) => [join(alone, `${when}-build-hook`)];

  test("needs none for builds that do not concern us", () => {
    writeFileSync(inFolder("x.drv"), "Derive(other)");
    rmSync(inFolder("run/derivations/x.drv"));
    for (const when of ["pre", "post"] as const) {
      expect(hook({ config: runtime() }, when, program)).toMatchObject({ status: 0, stdout: "", stderr: "" });
      expect(
        hook({ config: `${runtime()}next_${when}_build_hook=${folder}/next\n` }, when, program),
      ).toMatchObject({ status: 3, stderr: "" });
    }
  });

  test("G5: refuses a build that asks for a sandbox, which could use a store of its own; after builds it fails none", () => {
    const before = hook({ config: runtime() }, "pre", program);
    expect(before).toMatchObject({ status: 1, stdout: "" });
    expect(before.stderr).toBe(
      `nix-broker: cannot run ${alone}/pre-build-hook.sh: No such file or directory\n`,
    );
    expect(hook({ config: runtime() }, "post", program)).toMatchObject({ status: 0, stdout: "" });
  });
});
