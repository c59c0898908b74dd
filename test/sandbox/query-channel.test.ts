import { expect, test } from "vitest";
import { STDERR } from "../../src/protocol/log-messages.ts";
import { UpstreamConnection } from "../../src/sandbox/upstream/connection.ts";
import { QueryChannel } from "../../src/sandbox/upstream/query-channel.ts";
import { daemonThatSays } from "../protocol/memory-daemon.ts";
import { word } from "../protocol/memory-stream.ts";

const path = `/nix/store/${"0".repeat(32)}-x`;
const ANSWER_SECONDS = () => 600;
const YES = [word(STDERR.last), word(1)];

test("G8: requests that find their connection broken go on together on one new connection", async () => {
  const opened: UpstreamConnection[] = [];
  const channel = new QueryChannel(async () => {
    const daemon = daemonThatSays(...YES, ...YES);
    const connection = await UpstreamConnection.open(
      () => Promise.resolve(daemon),
      { minor: 21, features: new Set() },
      "/nix/store",
    );
    opened.push(connection);
    return connection;
  }, ANSWER_SECONDS);
  expect(await channel.ask("IsValidPath", { path })).toBe(true);
  opened[0]?.destroy();
  const both = [channel.ask("IsValidPath", { path }), channel.ask("IsValidPath", { path })];
  expect(await Promise.all(both)).toEqual([true, true]);
  expect(opened).toHaveLength(2);
  channel.close();
  await expect(channel.ask("IsValidPath", { path })).rejects.toThrow("the sandbox has ended");
});

test("G8: a connection that could not be opened is tried again for the next request", async () => {
  let tries = 0;
  const channel = new QueryChannel(() => {
    tries++;
    return Promise.reject(new Error("nobody there"));
  }, ANSWER_SECONDS);
  const both = await Promise.allSettled([
    channel.ask("IsValidPath", { path }),
    channel.ask("IsValidPath", { path }),
  ]);
  expect(both.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  await expect(channel.ask("IsValidPath", { path })).rejects.toThrow("nobody there");
  expect(tries).toBe(2);
});

test("G1: when another daemon takes over the socket, it is asked, and the connection to the old one is closed", async () => {
  const opened: UpstreamConnection[] = [];
  let restarted = false;
  const channel = new QueryChannel(
    async () => {
      const daemon = daemonThatSays(...YES, ...YES);
      const connection = await UpstreamConnection.open(
        () => Promise.resolve(daemon),
        { minor: 21, features: new Set() },
        "/nix/store",
      );
      opened.push(connection);
      return connection;
    },
    ANSWER_SECONDS,
    (connection) => restarted && connection === opened[0],
  );
  const before = channel.ask("IsValidPath", { path });
  expect(await before).toBe(true);
  restarted = true;
  expect(await channel.ask("IsValidPath", { path })).toBe(true);
  expect(opened).toHaveLength(2);
  await new Promise((resolve) => setImmediate(resolve));
  expect(opened.map(({ destroyed }) => destroyed)).toEqual([true, false]);
  channel.close();
});

test("G8: a daemon that hangs up on every connection is not tried for ever", async () => {
  let opened = 0;
  const channel = new QueryChannel(async () => {
    opened++;
    const connection = await UpstreamConnection.open(
      () => Promise.resolve(daemonThatSays()),
      { minor: 21, features: new Set() },
      "/nix/store",
    );
    connection.destroy();
    // A test without the bound ends, too.
    if (opened > 50) channel.close();
    return connection;
  }, ANSWER_SECONDS);
  await expect(channel.ask("IsValidPath", { path })).rejects.toThrow(
    "the nix-daemon closed 5 connections before it was asked anything",
  );
  expect(opened).toBe(5);
});

test("G8: a question that cannot be sent fails alone, and the next ones are answered", async () => {
  const channel = new QueryChannel(
    () =>
      UpstreamConnection.open(
        () => Promise.resolve(daemonThatSays(...YES)),
        { minor: 21, features: new Set() },
        "/nix/store",
      ),
    ANSWER_SECONDS,
  );
  await expect(channel.ask("IsValidPath", { path: undefined as unknown as string })).rejects.toThrow(
    TypeError,
  );
  expect(await channel.ask("IsValidPath", { path })).toBe(true);
  channel.close();
});
