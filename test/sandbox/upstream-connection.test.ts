import { afterEach, expect, test, vi } from "vitest";
import { STDERR } from "../../src/protocol/log-messages.ts";
import {
  type LogMessage,
  type Transport,
  UpstreamConnection,
} from "../../src/sandbox/upstream/connection.ts";
import { daemonThatSays } from "../protocol/memory-daemon.ts";
import { text, word } from "../protocol/memory-stream.ts";

const messages = [
  [word(STDERR.next), text("warning: SQLite database is busy\n")],
  [word(STDERR.startActivity), word(1), word(3), word(105), text("building"), word(0), word(0)],
  [word(STDERR.result), word(1), word(101), word(1), word(1), text("a line")],
  [word(STDERR.stopActivity), word(1)],
].flat();

test.each([
  ["nobody listens", undefined],
  ["somebody listens", ["text", "start", "result", "stop"]],
])("log messages before the reply are read when %s", async (_, heard) => {
  const connection = await UpstreamConnection.open(
    () => Promise.resolve(daemonThatSays(...messages, word(STDERR.last), word(1))),
    { minor: 21, features: new Set() },
    "/nix/store",
  );
  const log: LogMessage[] = [];
  const path = `/nix/store/${"0".repeat(32)}-x`;
  const listener = heard ? { log: (message: LogMessage) => void log.push(message) } : {};
  expect(await connection.ask("IsValidPath", { path }, 600, listener)).toBe(true);
  expect(log.map(({ kind }) => kind)).toEqual(heard ?? []);
  expect(connection.outOfStep).toBe(false);
});

afterEach(() => {
  vi.useRealTimers();
});

/** Says nothing more once it has said what it was given, until it is hung up on. */
function fallsSilent(daemon: Transport): Transport {
  const fill = daemon.fill.bind(daemon);
  const hungUp = Promise.withResolvers<boolean>();
  return Object.assign(daemon, {
    fill: async () => (await fill()) || hungUp.promise,
    destroy: (error?: Error) => (error ? hungUp.reject(error) : hungUp.resolve(false)),
  });
}
function silent() {
  return UpstreamConnection.open(
    () =>
      Promise.resolve(fallsSilent(Object.assign(daemonThatSays(), { fill: () => Promise.resolve(false) }))),
    { minor: 21, features: new Set() },
    "/nix/store",
  );
}

test("G8: a daemon that does not answer the greeting is given up", async () => {
  vi.useFakeTimers();
  const opening = expect(silent()).rejects.toThrow(
    "the nix-daemon said nothing for 20 seconds during the greeting",
  );
  await vi.advanceTimersByTimeAsync(20_000);
  await opening;
  expect(vi.getTimerCount()).toBe(0);
});

test("G8: a daemon that does not answer what the broker asks is given up", async () => {
  vi.useFakeTimers();
  const connection = await UpstreamConnection.open(
    () => Promise.resolve(fallsSilent(daemonThatSays())),
    { minor: 21, features: new Set() },
    "/nix/store",
  );
  expect(vi.getTimerCount()).toBe(0);
  const asking = expect(
    connection.ask("IsValidPath", { path: `/nix/store/${"0".repeat(32)}-x` }, 600),
  ).rejects.toThrow("what it says cannot be read");
  await vi.advanceTimersByTimeAsync(600_000);
  await asking;
  expect(vi.getTimerCount()).toBe(0);
});

/** What a daemon is sent, write by write. */
async function recorded(): Promise<{ connection: UpstreamConnection; writes: Buffer[] }> {
  const writes: Buffer[] = [];
  const daemon = Object.assign(daemonThatSays(), { write: (bytes: Buffer) => void writes.push(bytes) });
  const dialect = { minor: 21, features: new Set<never>() };
  const connection = await UpstreamConnection.open(() => Promise.resolve(daemon), dialect, "/nix/store");
  writes.length = 0;
  return { connection, writes };
}

const path = `/nix/store/${"0".repeat(32)}-x`;
const question = Buffer.concat([word(1), text(path)]);

test("a request and its short body go to the daemon in one write, and what follows at once", async () => {
  const { connection, writes } = await recorded();
  connection.gather();
  void connection.send("IsValidPath", { path });
  void connection.write(Buffer.from("bo"));
  void connection.write(Buffer.from("dy"));
  expect(writes).toEqual([]);
  void connection.flush();
  expect(writes).toEqual([Buffer.concat([question, Buffer.from("body")])]);
  void connection.flush();
  void connection.send("IsValidPath", { path });
  expect(writes.slice(1)).toEqual([question]);
});

test("G8: a long request goes out in pieces, between which others have their turns, and a short one at once", async () => {
  const { connection, writes } = await recorded();
  const paths = Array.from({ length: 10_000 }, (_, i) => `/nix/store/${String(i).padStart(32, "0")}-x`);
  void connection.send("QueryMissing", { paths });
  const [whole] = writes.splice(0);
  let pauses = 0;
  const pace = {
    due: true,
    pause: async () => {
      pauses++;
    },
  };
  await connection.sendInPieces("QueryMissing", { paths }, pace);
  expect(Buffer.concat(writes)).toEqual(whole);
  expect(Math.max(...writes.map(({ length }) => length))).toBeLessThan(100 * 1024);
  expect(pauses).toBeGreaterThan(30);
  writes.length = pauses = 0;
  connection.gather();
  await connection.sendInPieces("QueryMissing", { paths: paths.slice(0, 10) }, pace);
  expect([writes.length, pauses]).toEqual([0, 0]);
  void connection.flush();
  expect(writes).toHaveLength(1);
});

test("a long piece of a body is not gathered, and stays behind what was", async () => {
  const { connection, writes } = await recorded();
  const long = Buffer.alloc(100_000, "x");
  connection.gather();
  void connection.send("IsValidPath", { path });
  void connection.write(long);
  void connection.write(Buffer.from("end"));
  expect(writes.map(({ length }) => length)).toEqual([question.length, long.length, 3]);
  expect(writes[1]).toBe(long);
});

test("G8: what was gathered, and could not be sent, is told to whoever waits, and ends nothing else", async () => {
  const broken = Promise.reject<void>(new Error("EPIPE"));
  broken.catch(() => undefined);
  const connection = await UpstreamConnection.open(
    () => Promise.resolve(daemonThatSays()),
    { minor: 21, features: new Set() },
    "/nix/store",
  );
  connection.transport.write = () => broken;
  const unheard: unknown[] = [];
  const hear = (reason: unknown): void => void unheard.push(reason);
  process.on("unhandledRejection", hear);
  try {
    connection.gather();
    expect(connection.write(Buffer.alloc(8))).toBeUndefined();
    // More than is gathered: both are written, and only the second is waited for.
    await expect(connection.write(Buffer.alloc(64 * 1024))).rejects.toThrow("the connection broke");
    await new Promise((resolve) => setTimeout(resolve, 10));
  } finally {
    process.off("unhandledRejection", hear);
  }
  expect(unheard).toEqual([]);
});
