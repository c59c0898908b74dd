import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { acceptedStream, type ByteStream, connectStream, pairStream } from "../../src/host/socket.ts";
import { ByteStreamError } from "../../src/protocol/byte-stream.ts";

let folder: string;
let server: net.Server;
let accepted: ByteStream[];
let waiting: ((stream: ByteStream) => void)[];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "byte-stream-"));
  accepted = [];
  waiting = [];
  server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    const stream = acceptedStream(socket);
    const next = waiting.shift();
    if (next === undefined) accepted.push(stream);
    else next(stream);
  });
  await new Promise<void>((resolve) => server.listen(join(folder, "s"), resolve));
});

afterEach(async () => {
  for (const stream of accepted) stream.destroy();
  await new Promise((resolve) => server.close(resolve));
  rmSync(folder, { recursive: true });
});

async function pair(): Promise<[client: ByteStream, served: ByteStream]> {
  const arrival = new Promise<ByteStream>((resolve) => waiting.push(resolve));
  const client = await connectStream(join(folder, "s"));
  const served = await arrival;
  accepted.push(client, served);
  return [client, served];
}

async function read(stream: ByteStream, count: number): Promise<Buffer> {
  while (stream.available.length < count) {
    if (!(await stream.fill(count))) throw new Error("end of stream");
  }
  const bytes = Buffer.from(stream.available.subarray(0, count));
  stream.consume(count);
  return bytes;
}

async function copyAll(from: ByteStream, to: ByteStream): Promise<void> {
  for (;;) {
    const bytes = from.available;
    if (bytes.length === 0) {
      if (!(await from.fill())) break;
      continue;
    }
    const taken = to.write(bytes);
    if (taken !== undefined) await taken;
    from.consume(bytes.length);
  }
  to.end();
}

async function hashAll(stream: ByteStream): Promise<string> {
  const hash = createHash("sha256");
  while (stream.available.length > 0 || (await stream.fill())) {
    hash.update(stream.available);
    stream.consume(stream.available.length);
  }
  return hash.digest("hex");
}

test("bytes pass in both directions, and the peer is known", async () => {
  const [client, served] = await pair();
  expect(served.peer).toEqual({ pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() });
  expect(client.write(Buffer.from("question"))).toBeUndefined();
  expect((await read(served, 8)).toString()).toBe("question");
  expect(served.write(Buffer.from("answer"))).toBeUndefined();
  expect((await read(client, 6)).toString()).toBe("answer");
});

test("what arrives in pieces can be had in one piece", async () => {
  const [client, served] = await pair();
  const message = randomBytes(3_000_000);
  const sent = client.write(message);
  expect((await read(served, message.length)).equals(message)).toBe(true);
  await sent;
});

test("a message longer than the bound is refused without reading it", async () => {
  const [, served] = await pair();
  await expect(served.fill(65 * 1024 * 1024)).rejects.toMatchObject({ code: "too-long" });
});

test("two readers at once are an error, and the first still gets its bytes", async () => {
  const [client, served] = await pair();
  const first = served.fill();
  await expect(served.fill()).rejects.toMatchObject({ code: "busy" });
  void client.write(Buffer.from("x"));
  expect(await first).toBe(true);
});

test("the end of the peer is noticed while nobody reads, and what came before it is kept", async () => {
  const [client, served] = await pair();
  const ended = new Promise<void>((resolve) => {
    served.onEnd = resolve;
  });
  void client.write(Buffer.from("last words"));
  client.end();
  await ended;
  expect((await read(served, 10)).toString()).toBe("last words");
  expect(await served.fill()).toBe(false);
  // Our direction is still open.
  void served.write(Buffer.from("reply"));
  served.end();
  expect((await read(client, 5)).toString()).toBe("reply");
  await Promise.all([client.closed, served.closed]);
});

test("a peer that is killed closes the stream; waiting readers and writers are told", async () => {
  const arrival = new Promise<ByteStream>((resolve) => waiting.push(resolve));
  const script = `require("net").connect(${JSON.stringify(join(folder, "s"))}).pause(); setInterval(() => {}, 1000)`;
  const child = spawn(process.execPath, ["-e", script]);
  const served = await arrival;
  expect(served.peer?.pid).toBe(child.pid);
  const written = served.write(Buffer.alloc(4_000_000));
  expect(written).toBeInstanceOf(Promise);
  child.kill("SIGKILL");
  await expect(written).rejects.toThrow(ByteStreamError);
  await served.closed;
  await expect(served.write(Buffer.from("x"))).rejects.toThrow(ByteStreamError);
});

test("a slow reader holds the writer back: memory stays bounded", async () => {
  for (const bulk of [false, true]) {
    const [client, served] = await pair();
    served.bulk(bulk);
    let taken = 0;
    const chunk = Buffer.alloc(64 * 1024);
    let stuck: Promise<void> | undefined;
    while (stuck === undefined && taken < 100_000_000) {
      stuck = client.write(chunk);
      taken += chunk.length;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(taken).toBeLessThan(4_000_000);
    const hash = hashAll(served);
    await stuck;
    client.end();
    const expected = createHash("sha256").update(Buffer.alloc(taken)).digest("hex");
    expect(await hash).toBe(expected);
    served.end();
    await client.closed;
  }
});

test("bulk data passes unchanged through a relay, in frames that straddle every buffer", async () => {
  const [client, relayIn] = await pair();
  const [relayOut, sink] = await pair();
  for (const stream of [client, relayIn, relayOut, sink]) stream.bulk(true);
  const hash = createHash("sha256");
  const piece = randomBytes(77_777);
  const relayed = copyAll(relayIn, relayOut);
  const arrived = hashAll(sink);
  for (let i = 0; i < 500; i++) {
    hash.update(piece);
    await client.write(piece);
    if (i % 50 === 49) relayIn.bulk(i % 100 === 99);
  }
  client.end();
  await relayed;
  expect(await arrived).toBe(hash.digest("hex"));
});

test("a header at a time, leaving rests at every boundary", async () => {
  const [client, served] = await pair();
  served.bulk(true);
  const frames = 3000;
  const body = randomBytes(1021);
  const sending = (async () => {
    for (let i = 0; i < frames; i++) {
      const frame = Buffer.alloc(8 + body.length);
      frame.writeUInt32LE(i);
      body.copy(frame, 8);
      await client.write(frame);
    }
  })();
  for (let i = 0; i < frames; i++) {
    const frame = await read(served, 8 + body.length);
    expect(frame.readUInt32LE(0)).toBe(i);
    expect(frame.subarray(8).equals(body)).toBe(true);
  }
  await sending;
});

test("destroy with an error fails the reader with it and tells the owner", async () => {
  const [client, served] = await pair();
  const told = new Promise<Error | undefined>((resolve) => {
    served.onClose = resolve;
  });
  const reading = served.fill();
  served.destroy(new Error("cut off"));
  await expect(reading).rejects.toThrow("cut off");
  expect((await told)?.message).toBe("cut off");
  expect(await client.fill()).toBe(false);
});

test("the server can close while accepted streams are still served", async () => {
  const [client, served] = await pair();
  const other = server;
  await new Promise((resolve) => other.close(resolve));
  void served.write(Buffer.from("still here"));
  expect((await read(client, 10)).toString()).toBe("still here");
  server = net.createServer().listen(join(folder, "again"));
});

test("no socket at the path is a system error", async () => {
  await expect(connectStream(join(folder, "none"))).rejects.toMatchObject({ code: "ENOENT" });
});

test("a full listen queue is waited out", async () => {
  // A Python listener with no queue, which accepts only after some of the connects were refused.
  const path = join(folder, "narrow");
  const script = `
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(0)
print("ready", flush=True); time.sleep(0.3)
held = [s.accept()[0] for _ in range(8)]
sys.stdin.read()`;
  const child = spawn("python3", ["-c", script, path], { stdio: ["pipe", "pipe", "inherit"] });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  const streams = await Promise.all(
    Array.from({ length: 8 }, () => connectStream(path, { patienceMs: 60_000 })),
  );
  expect(streams).toHaveLength(8);
  for (const stream of streams) stream.destroy();
  child.stdin.end();
});

test("a pair of streams has the same interface", async () => {
  const input = new PassThrough();
  const output = new PassThrough();
  const stream = pairStream(input, output);
  input.write("abc");
  expect((await read(stream, 3)).toString()).toBe("abc");
  const data = randomBytes(1_000_000);
  input.end(data);
  expect((await read(stream, data.length)).equals(data)).toBe(true);
  expect(await stream.fill()).toBe(false);
  await stream.write(Buffer.from("out"));
  expect(output.read().toString()).toBe("out");
  stream.destroy();
  await stream.closed;
});

const ECHO = `
import { stdioStream } from ${JSON.stringify(join(import.meta.dirname, "../../src/host/socket.ts"))};
const stream = stdioStream();
for (;;) {
  const bytes = stream.available;
  if (bytes.length === 0) { if (await stream.fill()) continue; else break; }
  const taken = stream.write(bytes);
  if (taken !== undefined) await taken;
  stream.consume(bytes.length);
}
stream.end();
stream.destroy();
await stream.closed;
process.stderr.write("closed");`;

/** Bash's redirections around the echoing process: pipes, a file, one socket for both. */
for (const [kind, command] of [
  ["pipes", 'cat "$2" | "$0" --input-type=module -e "$1" | cat'],
  ["a file and a pipe", '"$0" --input-type=module -e "$1" < "$2" | cat'],
  ["a pipe and a file", 'cat "$2" | "$0" --input-type=module -e "$1" > "$2.out"; cat "$2.out"'],
] as const) {
  test(`standard input and output: ${kind}`, () => {
    const file = join(folder, "input");
    const data = randomBytes(5_000_000);
    writeFileSync(file, data);
    const result = spawnSync("bash", ["-c", command, process.execPath, ECHO, file], {
      maxBuffer: 10_000_000,
    });
    expect(result.stderr.toString()).toBe("closed");
    expect(result.stdout.equals(data)).toBe(true);
  });
}

test("standard input and output: one socket for both, as sshd gives", () => {
  const script = `
import socket, subprocess, sys, threading
ours, theirs = socket.socketpair()
child = subprocess.Popen([sys.argv[1], "--input-type=module", "-e", sys.argv[2]], stdin=theirs, stdout=theirs)
theirs.close()
data = bytes(range(256)) * 20000
def send():
    ours.sendall(data)
    ours.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
got = b""
while True:
    piece = ours.recv(1 << 16)
    if not piece: break
    got += piece
print(got == data, child.wait())`;
  const result = spawnSync("python3", ["-c", script, process.execPath, ECHO], { encoding: "utf8" });
  expect(result.stderr).toBe("closed");
  expect(result.stdout).toBe("True 0\n");
});

test("what arrived while nobody read is there at once for who consumes what they had seen and asks for more", async () => {
  const input = new PassThrough();
  const stream = pairStream(input, new PassThrough());
  input.write("first");
  await new Promise((resolve) => setImmediate(resolve));
  expect(stream.available.toString()).toBe("first");
  input.write("second");
  await new Promise((resolve) => setImmediate(resolve));
  stream.consume("first".length);
  // The peer sends no more: it waits for what becomes of this.
  expect(await stream.fill()).toBe(true);
  expect(stream.available.toString()).toBe("second");
  const waiting = stream.fill();
  input.end();
  expect(await waiting).toBe(false);
});
