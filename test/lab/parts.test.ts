import { spawn } from "node:child_process";
import { expect, test } from "vitest";
import { forgetParts, PartDied, until, watchPart, whilePartsLive, wordsOf } from "../../lab/parts.ts";

function start(script: string, owner: object = {}) {
  const child = spawn("sh", ["-c", script], { stdio: ["ignore", "pipe", "pipe"] });
  watchPart(owner, "the part", child, wordsOf(child));
  return child;
}

test("a part that ends by itself ends the wait, with its own words, once", async () => {
  start("sleep 0.1; echo cannot find my module >&2; exit 3");
  const died = await until(() => false).catch((error: unknown) => error);
  expect(died).toBeInstanceOf(PartDied);
  expect(String(died)).toBe(
    "LabError: the part ended by itself (exit code 3) while it was needed. It said:\ncannot find my module",
  );
  expect(await until(() => "found")).toBe("found");
});

test("also while somebody waits for a promise that it would have kept", async () => {
  start("kill -9 $$");
  await expect(whilePartsLive(new Promise(() => {}))).rejects.toThrow(/\(SIGKILL\).*\n\(nothing\)$/);
  await expect(whilePartsLive(Promise.resolve(1))).resolves.toBe(1);
  await expect(whilePartsLive(Promise.reject(new Error("its own")))).rejects.toThrow("its own");
});

test("one that was ended, or that nobody minds any more, ends nothing", async () => {
  const ended = start("exec sleep 1000");
  ended.kill();
  const owner = {};
  const forgotten = start("exit 1", owner);
  forgetParts(owner);
  const over = () => ended.signalCode !== null && forgotten.exitCode !== null;
  expect(await until(over)).toBe(true);
  let looks = 0;
  expect(await until(() => ++looks === 3)).toBe(true);
});
