import { spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { mkdir } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type Listener, listenOnPath } from "../../src/host/listen.ts";
import { connectStream } from "../../src/host/socket.ts";

let folder: string;
const open: Listener[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "listen-"));
});

afterEach(async () => {
  for (const listener of open.splice(0)) await listener.close();
  rmSync(folder, { recursive: true });
});

async function listen(path: string, options = {}): Promise<Listener> {
  const listener = await listenOnPath(path, (stream) => void stream.write(Buffer.from("hello")), options);
  open.push(listener);
  return listener;
}

async function greeting(path: string): Promise<string> {
  const stream = await connectStream(path);
  await stream.fill();
  const text = stream.available.toString();
  stream.destroy();
  return text;
}

test("a socket appears with its mode and owner, and goes when closed", async () => {
  const path = join(folder, "socket");
  const listener = await listen(path, { mode: 0o622, uid: 12, gid: 34 });
  const { mode, uid, gid } = lstatSync(path);
  expect([mode & 0o777, uid, gid]).toEqual([0o622, 12, 34]);
  expect(await greeting(path)).toBe("hello");
  expect(readdirSync(folder)).toEqual(["socket"]);
  await listener.close();
  expect(readdirSync(folder)).toEqual([]);
});

test("files that are made meanwhile get their usual mode", async () => {
  // In libuv's threads, at any moment while the socket is made.
  const listening = listen(join(folder, "socket"), { mode: 0o666 });
  const paths = Array.from({ length: 200 }, (_, i) => join(folder, `made-${i}`));
  await Promise.all([listening, ...paths.map((path) => mkdir(path, { mode: 0o700 }))]);
  const modes = new Set(paths.map((path) => lstatSync(path).mode & 0o777));
  expect([...modes]).toEqual([0o700]);
});

test("a socket that a killed process left is replaced", async () => {
  const path = join(folder, "socket");
  const script = `import socket, sys, os; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(1); os.kill(os.getpid(), 9)`;
  spawnSync("python3", ["-c", script, path]);
  expect(lstatSync(path).isSocket()).toBe(true);
  await listen(path);
  expect(await greeting(path)).toBe("hello");
});

test("a socket that somebody listens on is left alone", async () => {
  const path = join(folder, "socket");
  await listen(path);
  await expect(listen(path)).rejects.toMatchObject({ code: "busy", message: expect.stringContaining(path) });
  expect(await greeting(path)).toBe("hello");
  expect(readdirSync(folder)).toEqual(["socket"]);
});

test("a busy socket whose queue is full counts as busy", async () => {
  const path = join(folder, "socket");
  const script = `
import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(0)
c = socket.socket(socket.AF_UNIX); c.connect(sys.argv[1])
print("full", flush=True); sys.stdin.read()`;
  const child = spawn("python3", ["-c", script, path], { stdio: ["pipe", "pipe", "inherit"] });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  await expect(listen(path)).rejects.toMatchObject({ code: "busy" });
  child.stdin.end();
});

test("a file that is no socket is left alone", async () => {
  const path = join(folder, "file");
  writeFileSync(path, "precious");
  await expect(listen(path)).rejects.toMatchObject({ code: "not-a-socket" });
  expect(readFileSync(path, "utf8")).toBe("precious");
});

test("a path that is too long is named with its length", async () => {
  const path = join(folder, "x".repeat(108));
  await expect(listen(path)).rejects.toMatchObject({
    code: "too-long",
    message: expect.stringContaining(String(Buffer.byteLength(path))),
  });
  // Where it is made first has a longer name; the message speaks of the one that was asked for.
  const deep = join(folder, "y".repeat(98 - folder.length - 1));
  mkdirSync(deep);
  await expect(listen(join(deep, "s"))).rejects.toMatchObject({
    code: "too-long",
    message: expect.stringContaining(`The path ${deep}/s has 100 bytes`),
  });
  // The longest that fits does work.
  const longest = join(folder, "x".repeat(107 - folder.length - 1));
  await listen(longest);
  expect(await greeting(longest)).toBe("hello");
});

test("a folder that does not exist is a clear error", async () => {
  await expect(listen(join(folder, "none/socket"))).rejects.toMatchObject({
    code: "system",
    message: `Cannot listen on ${folder}/none/socket: its folder ${folder}/none does not exist; make it first (ENOENT).`,
  });
});

test("a socket that another process put in our place is not removed", async () => {
  const path = join(folder, "socket");
  const listener = await listen(path);
  rmSync(path);
  const other = net.createServer();
  await new Promise<void>((resolve) => other.listen(path, resolve));
  await listener.close();
  expect(existsSync(path)).toBe(true);
  await new Promise((resolve) => other.close(resolve));
});

test("a folder that may not be written to leaves nothing behind", async () => {
  const closedFolder = join(folder, "closed");
  mkdirSync(closedFolder);
  chmodSync(closedFolder, 0o555);
  // As an ordinary user: root may write everywhere.
  const script = `
import { listenOnPath } from ${JSON.stringify(join(import.meta.dirname, "../../src/host/listen.ts"))};
process.setuid(65534);
try { await listenOnPath(process.argv[1], () => {}); } catch (error) { console.log(error.code, error.message); }`;
  chmodSync(folder, 0o755);
  const result = spawnSync(
    process.execPath,
    ["--input-type=module", "-e", script, join(closedFolder, "socket")],
    { encoding: "utf8" },
  );
  expect(result.stdout).toBe(
    `system Cannot listen on ${closedFolder}/socket: this process (user 65534) may not create files in ${closedFolder} (EACCES).\n`,
  );
  expect(readdirSync(closedFolder)).toEqual([]);
});

test("G8: the service survives running out of descriptors, and serves again when there are some", async () => {
  const path = join(folder, "socket");
  const script = `
import { listenOnPath } from ${JSON.stringify(join(import.meta.dirname, "../../src/host/listen.ts"))};
await listenOnPath(process.argv[1], (stream) => { stream.write(Buffer.from("hello")); stream.onEnd = () => stream.end(); });
console.log("ready");`;
  const command = 'ulimit -n 60; exec "$0" --input-type=module -e "$1" "$2"';
  const child = spawn("bash", ["-c", command, process.execPath, script, path], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  const crowd = await Promise.allSettled(Array.from({ length: 200 }, () => connectStream(path)));
  const connected = crowd.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
  expect(connected.length).toBeGreaterThan(60);
  // More than it has descriptors for: all of the last ones cannot have been greeted.
  await Promise.all(connected.slice(0, 10).map((stream) => stream.fill()));
  for (const stream of connected) stream.destroy();
  expect(await greeting(path)).toBe("hello");
  expect(child.exitCode).toBe(null);
  child.kill("SIGKILL");
});
