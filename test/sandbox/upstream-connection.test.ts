import { expect, test } from "vitest";
import { STDERR } from "../../src/protocol/log-messages.ts";
import { type LogMessage, UpstreamConnection } from "../../src/sandbox/upstream-connection.ts";
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
  expect(await connection.ask("IsValidPath", { path }, listener)).toBe(true);
  expect(log.map(({ kind }) => kind)).toEqual(heard ?? []);
  expect(connection.outOfStep).toBe(false);
});
