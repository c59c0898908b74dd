import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { takeActivatedSockets } from "../../src/host/activation.ts";
import { connectStream } from "../../src/host/socket.ts";

const source = join(import.meta.dirname, "../../src/host");
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "activation-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** Does what systemd does: opens the sockets, sets the variables, and becomes the service. */
const ACTIVATE = `
import os, socket, sys
kind, folder, node, script = sys.argv[1:5]
sockets = []
for number, name in enumerate(["one", "two"]):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sockets.append(s)
    s.bind(os.path.join(folder, name))
    if kind == "listening": s.listen(5)
    os.dup2(s.fileno(), 3 + number)
    os.set_inheritable(3 + number, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES="first:second")
os.execv(node, [node, "--input-type=module", "-e", script])`;

const SERVICE = `
import { takeActivatedSockets, ActivationError } from ${JSON.stringify(join(source, "activation.ts"))};
import { listenOnDescriptor } from ${JSON.stringify(join(source, "listen.ts"))};
try {
  for (const { fd, name } of takeActivatedSockets()) {
    await listenOnDescriptor(fd, (stream) => { stream.write(Buffer.from(name)); stream.end(); });
  }
  console.log("ready", process.env.LISTEN_FDS);
} catch (error) {
  console.log(error.name, error.message);
}`;

function activate(kind: string): { output: Promise<string>; stop(): void } {
  const arguments_ = ["-c", ACTIVATE, kind, folder, process.execPath, SERVICE];
  const child = spawn("python3", arguments_, { stdio: ["ignore", "pipe", "inherit"] });
  const output = new Promise<string>((resolve) => child.stdout.once("data", (data) => resolve(String(data))));
  return { output, stop: () => child.kill("SIGKILL") };
}

test("sockets passed by the service manager are served under their names", async () => {
  const service = activate("listening");
  expect(await service.output).toBe("ready undefined\n");
  for (const [file, name] of [
    ["one", "first"],
    ["two", "second"],
  ] as const) {
    const stream = await connectStream(join(folder, file));
    await stream.fill();
    expect(stream.available.toString()).toBe(name);
    stream.destroy();
  }
  service.stop();
});

test("a socket that does not listen is refused with what to do", async () => {
  const service = activate("only bound");
  expect(await service.output).toMatch(/^ActivationError Descriptor 3.*ListenStream=/);
  service.stop();
});

test("variables meant for another process are not ours, and are removed", () => {
  const environment = { LISTEN_PID: "1", LISTEN_FDS: "2", LISTEN_FDNAMES: "a:b", HOME: "/" };
  expect(takeActivatedSockets(environment)).toEqual([]);
  expect(environment).toEqual({ HOME: "/" });
});

test("no variables, no sockets; a count that is none is an error", () => {
  expect(takeActivatedSockets({})).toEqual([]);
  expect(() => takeActivatedSockets({ LISTEN_PID: String(process.pid), LISTEN_FDS: "many" })).toThrow(
    /"many"/,
  );
});
