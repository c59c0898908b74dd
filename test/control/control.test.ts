/** The control channel itself: who may use it, what it bounds, and what its folder must be. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, expect, test } from "vitest";
import { ControlAccess } from "../../src/service/control/access.ts";
import {
  askService,
  type ControlHandlers,
  type ControlServer,
  controlSocket,
  serveControl,
} from "../../src/service/control/control.ts";
import type { SandboxDetails } from "../../src/service/control/messages.ts";
import { summary } from "../web/site.ts";

const base = mkdtempSync(join(tmpdir(), "nix-broker-control-"));
chmodSync(base, 0o755);
afterAll(() => rmSync(base, { recursive: true }));

const NOBODY = 65_534;
let count = 0;
let server: ControlServer | undefined;
const problems: Error[] = [];
afterEach(() => {
  server?.close();
  server = undefined;
  problems.length = 0;
});

const list = { total: 0, paths: [] };
/** An answer of some MiB. */
const MUCH: SandboxDetails = {
  ...summary("a".repeat(32)),
  viewStart: { total: 0, paths: Array<string>(30_000).fill("x".repeat(100)) },
  gained: list,
  innerBuilds: [],
};

const asked: unknown[] = [];
const handlers: ControlHandlers = {
  status: () => {
    throw new Error("no status today");
  },
  sandboxes: () => [],
  sandbox: (asks) => {
    asked.push(asks);
    throw new Error(`asked for ${JSON.stringify(asks)}`);
  },
  endJail: () => {
    throw new Error("nothing is ended today");
  },
};

interface Opened {
  readonly group?: number;
  readonly refusal?: () => string | undefined;
  readonly answers?: Partial<ControlHandlers>;
}

async function open(options: Opened = {}): Promise<string> {
  const folder = join(base, `c${++count}`);
  server = await serveControl({
    folder,
    group: options.group,
    refusal: options.refusal ?? ((socket) => new ControlAccess("").refusal(socket)),
    handlers: { ...handlers, ...options.answers },
    onProblem: (error) => problems.push(error),
  });
  return folder;
}

/** Asks as another user, in a process of its own. */
async function askAs(uid: number, folder: string): Promise<string> {
  const module = fileURLToPath(new URL("../../src/service/control/control.ts", import.meta.url));
  const script = `import(${JSON.stringify(module)}).then((m) => m.askService(${JSON.stringify(folder)}, "sandboxes", {}))
    .then((found) => console.log(JSON.stringify(found)), (error) => console.log(error.code + ": " + error.message))`;
  const { stdout } = await promisify(execFile)(process.execPath, ["-e", script], { uid, gid: uid });
  return stdout.trim();
}

test("the service's own user is answered, and refusals are told in the service's words", async () => {
  const folder = await open();
  expect(await askService(folder, "sandboxes", {})).toEqual([]);
  await expect(askService(folder, "status", {})).rejects.toMatchObject({
    code: "refused",
    message: "no status today",
  });
  await expect(askService(folder, "sandbox", { id: "abc" })).rejects.toThrow('asked for {"id":"abc"}');
});

test("its folder is 0700, and the socket is gone after the service", async () => {
  const folder = await open();
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  server?.close();
  server = undefined;
  await expect(askService(folder, "sandboxes", {})).rejects.toMatchObject({ code: "unreachable" });
});

test("a second service is refused, and neither it nor its end touches the first one's socket", async () => {
  const folder = await open();
  const options = {
    folder,
    group: undefined,
    refusal: () => undefined,
    handlers,
    onProblem: () => undefined,
  };
  await expect(serveControl(options)).rejects.toMatchObject({
    code: "busy",
    message: expect.stringContaining(
      `Another nix-broker (process ${process.pid}) has the control channel in ${folder}.`,
    ),
  });
  expect(await askService(folder, "sandboxes", {})).toEqual([]);
  server?.close();
  server = await serveControl(options);
  expect(await askService(folder, "sandboxes", {})).toEqual([]);
});

test("nothing there, nobody listening: unreachable, with what to do", async () => {
  await expect(askService(join(base, "nowhere"), "sandboxes", {})).rejects.toThrow(
    /nothing is at .*nowhere\/socket\. Start the service \(systemctl start nix-broker\)/,
  );
});

test("a group may be let in: the folder is its then, and its members alone are answered", async () => {
  const folder = await open({ group: NOBODY, refusal: () => undefined });
  expect(statSync(folder)).toMatchObject({ gid: NOBODY });
  expect(statSync(folder).mode & 0o777).toBe(0o750);
  expect(statSync(controlSocket(folder)).mode & 0o777).toBe(0o660);
  expect(await askAs(NOBODY, folder)).toBe("[]");
});

test("a stranger who got as far as the socket is refused by the kernel's word", async () => {
  // As if somebody had opened the folder and the socket to everybody.
  const folder = await open();
  expect(await askAs(NOBODY, folder)).toMatch(
    /^unreachable: .*this user may not reach .*runtime\.admin_group/,
  );
  chmodSync(folder, 0o755);
  chmodSync(controlSocket(folder), 0o666);
  expect(await askAs(NOBODY, folder)).toMatch(/^refused: user 65534 may not use the control channel/);
});

test("what a refused peer sends is not acted upon", async () => {
  const folder = await open({ refusal: () => "go away" });
  asked.length = 0;
  const socket = connect(controlSocket(folder));
  socket.write('{"type":"sandbox","data":{"id":"smuggled"}}\f');
  const [text] = await once(socket.setEncoding("utf8"), "data");
  expect(text).toBe('{"type":"refused","data":"go away"}\f');
  await once(socket, "close");
  expect(asked).toEqual([]);
});

test("one request a connection is acted upon", async () => {
  const folder = await open();
  asked.length = 0;
  const socket = connect(controlSocket(folder));
  socket.write('{"type":"sandbox","data":1}\f{"type":"sandbox","data":2}\f');
  await once(socket.resume(), "close");
  expect(asked).toEqual([1]);
});

test.each([
  ["an event that is not on the list", '{"type":"shutdown","data":{}}\f'],
  ["an event of node-ipc's own", '{"type":"connect","data":{}}\f'],
  ["what is no JSON", "}{\f"],
  ["what is no object", "[1,2,3]\f"],
  ["a name of the prototype's", '{"type":"constructor"}\f'],
])("%s ends that connection, and no other", async (_, text) => {
  const folder = await open();
  const socket = connect(controlSocket(folder));
  socket.on("error", () => undefined);
  socket.write(text);
  await new Promise((resolve) => socket.resume().on("close", resolve));
  expect(problems.map(({ name }) => name)).toContain("IPCProtocolError");
  expect(await askService(folder, "sandboxes", {})).toEqual([]);
});

test("what is no request in length ends its connection, and is not kept", async () => {
  const folder = await open();
  const socket = connect(controlSocket(folder));
  socket.on("error", () => undefined);
  const closed = new Promise((resolve) => socket.resume().on("close", resolve));
  // As one frame it would be within what an answer may have.
  const writing = setInterval(() => socket.write("x".repeat(1024)), 1);
  await closed;
  clearInterval(writing);
  expect(socket.bytesWritten).toBeLessThan(1024 * 1024);
  expect(await askService(folder, "sandboxes", {})).toEqual([]);
});

/** A peer that asks, or does not, and never hangs up nor reads. */
async function holding(folder: string, text: string): Promise<Socket> {
  const socket = connect({ path: controlSocket(folder), allowHalfOpen: true });
  socket.on("error", () => undefined);
  await once(socket, "connect");
  socket.write(text);
  return socket;
}

test.each([
  ["ask", '{"type":"sandboxes","data":{}}\f'],
  ["ask for much and do not read it", '{"type":"sandbox","data":"much"}\f'],
  ["are in the middle of asking", '{"type":'],
  ["say nothing", ""],
])("peers that %s and never hang up keep nobody out", async (_, text) => {
  const folder = await open({ answers: { sandbox: () => MUCH } });
  const sockets: Socket[] = [];
  for (let i = 0; i < 100; i++) sockets.push(await holding(folder, text));
  expect(await askService(folder, "sandboxes", {})).toEqual([]);
  for (const socket of sockets) socket.destroy();
});

test("a peer that was answered is closed, though it goes on asking", async () => {
  const folder = await open();
  const socket = await holding(folder, '{"type":"sandboxes","data":{}}\f');
  await once(socket.resume(), "end");
  const asking = setInterval(() => socket.write('{"type":"sandboxes","data":{}}\f'), 20);
  await new Promise((resolve) => socket.on("close", resolve));
  clearInterval(asking);
});

test("a folder of somebody else's is not used", async () => {
  const folder = join(base, "foreign");
  mkdirSync(folder);
  chownSync(folder, NOBODY, NOBODY);
  const opened = serveControl({
    folder,
    group: undefined,
    refusal: () => undefined,
    handlers,
    onProblem: () => undefined,
  });
  await expect(opened).rejects.toThrow(
    /Cannot open the control channel in .*foreign: .*runtime\.control_dir/,
  );
  expect(existsSync(controlSocket(folder))).toBe(false);
});

test("a group that is not there is named with its key", () => {
  expect(() => new ControlAccess("no-such-group-here").groupId).toThrow(
    'runtime.admin_group: there is no group "no-such-group-here"',
  );
});
