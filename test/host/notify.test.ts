import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Notifier } from "../../src/host/notify.ts";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "notify-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** A real datagram socket, as the service manager has one; prints each message as JSON, with the sender's pid. */
const MANAGER = `
import json, socket, struct, sys
name = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind("\\0" + name[1:] if name[0] == "@" else name)
print("bound", flush=True)
while True:
    data, control, _, _ = s.recvmsg(4096, 64)
    print(json.dumps([data.decode(), struct.unpack("iii", control[0][2])[0]]), flush=True)`;

for (const kind of ["path", "abstract name"]) {
  test(`the service manager hears of every state by ${kind}`, async () => {
    const name = kind === "path" ? join(folder, "notify") : `@notify-${process.pid}-${Date.now()}`;
    const manager = spawn("python3", ["-c", MANAGER, name], { stdio: ["ignore", "pipe", "inherit"] });
    const lines = createInterface(manager.stdout)[Symbol.asyncIterator]();
    const line = async (): Promise<string> => (await lines.next()).value as string;
    expect(await line()).toBe("bound");

    const environment = { NOTIFY_SOCKET: name, WATCHDOG_USEC: "30000000", WATCHDOG_PID: String(process.pid) };
    const notifier = Notifier.fromEnvironment(environment);
    expect(environment).toEqual({});
    expect(notifier?.watchdogMs).toBe(30_000);
    expect(notifier?.ready("serving 2 sockets")).toBeUndefined();
    expect(notifier?.status("one\nSTOPPING=1")).toBeUndefined();
    expect(notifier?.watchdog()).toBeUndefined();
    expect(notifier?.stopping()).toBeUndefined();
    const expected = [
      "READY=1\nSTATUS=serving 2 sockets",
      "STATUS=one STOPPING=1",
      "WATCHDOG=1",
      "STOPPING=1",
    ];
    for (const text of expected) expect(JSON.parse(await line())).toEqual([text, process.pid]);
    manager.kill("SIGKILL");
  });
}

test("nobody waits: there is no notifier", () => {
  expect(Notifier.fromEnvironment({})).toBeUndefined();
  expect(Notifier.fromEnvironment({ WATCHDOG_USEC: "1000" })).toBeUndefined();
});

test("a watchdog meant for another process is not ours", () => {
  const environment = { NOTIFY_SOCKET: "/x", WATCHDOG_USEC: "1000", WATCHDOG_PID: "1" };
  expect(Notifier.fromEnvironment(environment)?.watchdogMs).toBeUndefined();
});

test("a manager that is gone is an error returned, not thrown", () => {
  const notifier = Notifier.fromEnvironment({ NOTIFY_SOCKET: join(folder, "nobody") });
  expect(notifier?.ready()?.message).toContain("ENOENT");
});

test("a name that cannot be one is refused", () => {
  expect(() => Notifier.fromEnvironment({ NOTIFY_SOCKET: "relative" })).toThrow(/absolute path/);
  expect(() => Notifier.fromEnvironment({ NOTIFY_SOCKET: `/${"x".repeat(200)}` })).toThrow(/201 bytes/);
});
