/** The compiled hooks have the linker do their work: both ends of their socket. */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { compileHook } from "../../scripts/build-hooks.ts";
import { callOf, type HookName } from "../../src/root/hook-call.ts";
import { type HookHandler, listenForHooks } from "../../src/root/hook-server.ts";

const names: readonly HookName[] = ["pre-build-hook", "post-build-hook"];
const built = mkdtempSync(join(tmpdir(), "nix-broker-asking-hooks-"));
afterAll(() => rmSync(built, { recursive: true, force: true }));
const options = [
  "-DPATIENCE=3",
  "-g",
  "-Werror",
  "-fsanitize=address,undefined",
  "-fno-sanitize-recover=all",
];
const isCompiled = names.every((name) => {
  writeFileSync(join(built, `${name}.sh`), '#!/bin/sh\necho "script $*"\n', { mode: 0o755 });
  const [when = ""] = name.split("-");
  return compileHook(when, join(built, name), process.env.CC || "cc", options);
});

let folder: string;
let server: Server | undefined;
const socket = (): string => join(folder, "hooks.sock");
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-hook-server-"));
  mkdirSync(join(folder, "derivations/x.drv"), { recursive: true });
  writeFileSync(join(folder, "x.drv"), 'Derive(("requiredSystemFeatures","nix-broker"))');
  writeFileSync(join(folder, "root.conf"), `runtime_dir=${folder}\n`);
});
afterEach(() => {
  server?.close();
  server = undefined;
  rmSync(folder, { recursive: true, force: true });
});

async function listen(handle: HookHandler): Promise<void> {
  server = await listenForHooks(socket(), handle);
}

/** As {@link listen}, with an answer that the linker would never give. */
async function answer(bytes: string | Buffer): Promise<void> {
  server = createServer((client) => {
    client.on("error", () => undefined);
    client.once("data", () => client.end(bytes));
  }).listen(socket());
  await once(server, "listening");
}

/** Runs a hook as Nix does. */
async function run(name: HookName): Promise<{ code: number; stdout: string; stderr: string }> {
  const args = name === "pre-build-hook" ? [join(folder, "x.drv"), "/a chroot"] : [];
  const child = spawn(join(built, name), args, {
    stdio: ["ignore", "pipe", "pipe"],
    env: {
      DRV_PATH: join(folder, "x.drv"),
      NIX_BROKER_ROOT_CONFIG: join(folder, "root.conf"),
      TEXT: "a=b\nc",
    },
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (text) => (stdout += text));
  child.stderr.on("data", (text) => (stderr += text));
  const [code] = await once(child, "close");
  return { code, stdout, stderr };
}

const script = (name: HookName): string =>
  name === "pre-build-hook" ? `script ${folder}/x.drv /a chroot\n` : "script \n";

describe.runIf(isCompiled).each(names)("the compiled %s", (name) => {
  const other = names.find((each) => each !== name) as HookName;

  test("prints what the linker answers, which finds how Nix called it", async () => {
    const text = "extra-sandbox-paths\n/a=/b\n\n";
    let called: unknown;
    await listen(async (asked, pid) => {
      const { args, environment, parent } = callOf(pid, asked);
      called = { asked, args, text: environment.TEXT, drv: environment.DRV_PATH, parent };
      return text;
    });
    const { code, stdout, stderr } = await run(name);
    expect(code).toBe(0);
    expect(name === "pre-build-hook" ? { stdout, stderr } : { stdout: stderr, stderr: stdout }).toEqual({
      stdout: text,
      stderr: "",
    });
    expect(called).toEqual({
      asked: name,
      args: name === "pre-build-hook" ? [join(folder, "x.drv"), "/a chroot"] : [],
      text: "a=b\nc",
      drv: join(folder, "x.drv"),
      parent: process.pid,
    });
  });

  test("runs the next hook afterwards, and leaves a bare name to the script", async () => {
    await listen(async () => "");
    const next = join(folder, "next");
    writeFileSync(next, '#!/bin/sh\necho "next $*"\nexit 3\n', { mode: 0o755 });
    const configure = (hook: string) =>
      writeFileSync(
        join(folder, "root.conf"),
        `runtime_dir=${folder}\nnext_${name.replaceAll("-", "_")}=${hook}\n`,
      );
    configure(next);
    expect(await run(name)).toEqual({ code: 3, stdout: script(name).replace("script", "next"), stderr: "" });
    configure("next");
    expect((await run(name)).stdout).toBe(script(name));
  });

  test.each<[string, () => Promise<unknown>]>([
    ["there is none", async () => undefined],
    ["nobody listens", async () => writeFileSync(socket(), "")],
    ["it refuses", () => listen(() => Promise.reject(new Error("it cannot be done here")))],
    ["it dies before it answers", () => answer("")],
    ["it dies while it answers", () => answer("extra-sandbox-paths\n/a=/b\n")],
    ["it does not answer", () => listen(() => new Promise(() => undefined))],
    ["it answers more than there is room for", () => answer(Buffer.alloc(70_000, "x"))],
  ])("leaves the work to the script where %s", async (_what, begin) => {
    await begin();
    expect(await run(name)).toEqual({ code: 0, stdout: script(name), stderr: "" });
  });

  test("leaves it to the script where the path of the socket is too long", async () => {
    const long = join(folder, "x".repeat(120));
    mkdirSync(join(long, "derivations/x.drv"), { recursive: true });
    writeFileSync(join(folder, "root.conf"), `runtime_dir=${long}\n`);
    expect(await run(name)).toEqual({ code: 0, stdout: script(name), stderr: "" });
  });

  test("is not taken for the other one, nor is another program for a hook", async () => {
    const refusals: string[] = [];
    await listen(async (_, pid) => {
      for (const asked of [pid, process.pid, 4_194_305])
        try {
          callOf(asked, other);
        } catch (error) {
          refusals.push((error as Error).message);
        }
      return "";
    });
    await run(name);
    expect(refusals).toEqual([
      expect.stringMatching(new RegExp(`^process [0-9]+ is not a ${other}$`)),
      `process ${process.pid} is not a ${other}`,
      expect.stringContaining("4194305"),
    ]);
  });
});

describe("the linker's socket for hooks", () => {
  test("lets root alone in", async () => {
    await listen(async () => "");
    const { mode, uid } = statSync(socket());
    expect({ mode: mode & 0o777, uid }).toEqual({ mode: 0o600, uid: process.geteuid?.() });
    if (process.geteuid?.() !== 0) return;
    spawnSync("chmod", ["755", folder]);
    const script = `require("node:net").connect(${JSON.stringify(socket())}).on("connect", () => { console.log("in"); process.exit(); }).on("error", (error) => console.log(error.code))`;
    const { stdout } = spawnSync(process.execPath, ["-e", script], { uid: 1, gid: 1, encoding: "utf8" });
    expect(stdout).toBe("EACCES\n");
  });

  test.each([
    "pre-build-hook\n",
    "pre-build-hook 0\n",
    "pre-build-hook 12 \n",
    "pre-build-hook 12\npost-build-hook 12\n",
    "a-build-hook 12\n",
    "x".repeat(100),
    `pre-build-hook ${"1".repeat(60)}\n`,
  ])("closes the connection at %j", async (request) => {
    let asked = false;
    await listen(async () => {
      asked = true;
      return "";
    });
    const client = connect(socket());
    let answered = "";
    client.on("data", (bytes) => (answered += bytes));
    client.write(request);
    await once(client, "close");
    expect({ asked, answered }).toEqual({ asked: false, answered: "" });
  });

  test("takes a request that comes in pieces", async () => {
    await listen(async (name, pid) => `${name} of ${pid}`);
    const client = connect(socket());
    let answered = "";
    client.on("data", (bytes) => (answered += bytes));
    for (const piece of ["post-", "build-hook 4", "2\n"]) {
      client.write(piece);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await once(client, "close");
    expect(answered).toBe("post-build-hook of 42\0");
  });

  test("takes the place of a socket that a killed linker left", async () => {
    symlinkSync("/nonexistent", socket());
    await listen(async () => "");
    expect(existsSync(socket())).toBe(true);
  });
});

test("settings that a hook could read and the linker cannot are not taken for none", async () => {
  const name = "pre-build-hook";
  const program = join(folder, name);
  symlinkSync("/bin/sleep", program);
  const settingsOf = async (text: string): Promise<() => string> => {
    writeFileSync(join(folder, "nix.conf"), text);
    const child = spawn(program, ["60"], { env: { NIX_CONF_DIR: folder } });
    try {
      await once(child, "spawn");
      await expect.poll(() => readFileSync(`/proc/${child.pid}/cmdline`, "latin1")).toContain("60");
      const call = callOf(child.pid as number, name);
      return () => call.setting("sandbox-paths");
    } finally {
      child.kill("SIGKILL");
    }
  };
  expect((await settingsOf("sandbox-paths = /a\n"))()).toBe("/a");
  const hidden = await settingsOf("sandbox-paths = /a\n!include /nonexistent/nix.conf\n");
  expect(hidden).toThrow("/nonexistent/nix.conf");
});
