/** Readers of the page that ask without reading, or too much: what they take stays bounded, and others are served. */
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WebSocket } from "ws";
import { Site, TOKEN } from "./site.ts";

const SANDBOX = "a".repeat(32);
const MIB = 1024 * 1024;

let site: Site;
beforeEach(() => {
  site = new Site();
});
afterEach(() => site.close());

/** Records whose JSON is some MiB. */
function load(count: number): void {
  const subjects = Array.from({ length: 10 }, (_, i) => `/nix/store/${String(i).padStart(32, "0")}-path`);
  for (let i = 0; i < count; i++) site.record({ sandbox: SANDBOX, connection: i, subjects });
  site.store.flush();
}

const protocols = ["nix-broker", `token.${Buffer.from(TOKEN).toString("base64url")}`];

/** A frame of a client's, with a mask of zeroes. */
function frame(opcode: number, payload: string): Buffer {
  return Buffer.concat([
    Buffer.from([0x80 | opcode, 0x80 | payload.length, 0, 0, 0, 0]),
    Buffer.from(payload),
  ]);
}
const TEXT = 1;
const PING = 9;
const ask = frame(TEXT, JSON.stringify({ type: "sandbox", id: SANDBOX }));

/** A reader that has shaken hands, and reads nothing more. */
async function silentReader(): Promise<Socket> {
  const socket = connect(site.port, "127.0.0.1");
  socket.on("error", () => undefined);
  socket.write(
    "GET /feed HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" +
      `Sec-WebSocket-Protocol: ${protocols.join(", ")}\r\n\r\n`,
  );
  await new Promise((resolve) => socket.once("readable", resolve));
  return socket;
}

/** What a page is told when it comes, and when it asks for the sandbox: once it was greeted, or at once. */
async function wellBehaved(asksAfter: "open" | "hello" = "hello"): Promise<readonly unknown[]> {
  const socket = new WebSocket(`ws://127.0.0.1:${site.port}/feed`, protocols);
  const types: unknown[] = [];
  const asks = (): void => socket.send(JSON.stringify({ type: "sandbox", id: SANDBOX }));
  if (asksAfter === "open") socket.on("open", asks);
  await new Promise<void>((resolve, reject) => {
    socket.on("error", reject);
    socket.on("message", (data) => {
      const { type } = JSON.parse(String(data));
      types.push(type);
      if (type === asksAfter) asks();
      if (type === "sandbox") resolve();
    });
  });
  socket.terminate();
  return types;
}

function memory(): number {
  return process.memoryUsage().rss / MIB;
}

test.each([
  ["the same sandbox", Buffer.concat(Array<Buffer>(100).fill(ask)), 1],
  ["the same sandbox, eight of them", Buffer.concat(Array<Buffer>(100).fill(ask)), 8],
  ["pongs", Buffer.concat(Array<Buffer>(100).fill(frame(PING, "x".repeat(125)))), 1],
])("readers that ask for %s without reading cost little, and others are answered", async (_, text, count) => {
  load(4000);
  await site.start();
  await wellBehaved();
  const before = memory();
  const readers = await Promise.all(Array.from({ length: count }, silentReader));
  let asking = true;
  const flood = Promise.all(
    readers.map(async (socket) => {
      while (asking && !socket.destroyed) {
        if (!socket.write(text)) await sleep(1);
        if (socket.writableLength > 4 * MIB) await sleep(20);
      }
    }),
  );
  let peak = before;
  for (let i = 0; i < 10; i++) {
    expect(await wellBehaved()).toContain("sandbox");
    await sleep(100);
    peak = Math.max(peak, memory());
  }
  asking = false;
  await flood;
  expect(peak - before).toBeLessThan(200);
  for (const socket of readers) socket.destroy();
});

test("pages that ask before they were greeted, while others are served, are answered", async () => {
  load(10);
  await site.start();
  const told = await Promise.all([1, 2, 3, 4].map(() => wellBehaved("open")));
  for (const types of told) expect(types[0]).toBe("hello");
});

test("a reader that takes nothing of what waits for it is closed", async () => {
  load(4000);
  await site.start({ patienceMs: 200 });
  const socket = await silentReader();
  const closed = new Promise<void>((resolve) => socket.on("close", () => resolve()));
  const asking = setInterval(() => socket.write(ask), 20);
  await closed;
  clearInterval(asking);
});

test("a reader that sends very many messages at once is closed", async () => {
  await site.start();
  const socket = await silentReader();
  const closed = new Promise<void>((resolve) => socket.resume().on("close", () => resolve()));
  socket.write(Buffer.concat(Array<Buffer>(5000).fill(frame(PING, ""))));
  await closed;
});
