import { expect, test } from "vitest";
import { processStat } from "../../src/root/process-tree.ts";
import { clientOf, shownPid } from "../../src/root/worker-client.ts";

test.each([
  ["in the place of --daemon", "nix-daemon\x007160\0\0\0\0\0", 7160],
  ["before more arguments", "nix-daemon\x007160\0\0\0\0\0--option\0", 7160],
  ["as long as there can be", "nix-daemon\x004194303\0", 4194303],
  ["cut, or just as long as its place", "nix\x00419430\0", undefined],
  ["of a client that the daemon does not see", "nix-daemon\x000\0\0\0\0\0\0\0\0", undefined],
  ["as Lix names it", "nix-daemon\0--for\x007160\0--log-level\x003\0", 7160],
  ["that Lix does not know", "nix-daemon\0--for\0unknown\0--log-level\x003\0", undefined],
  ["not there: no argument", "nix-daemon\0", undefined],
  ["not there: the daemon itself", "nix-daemon\0--daemon\0", undefined],
  ["in another argument", "nix-daemon\0--x\x007160\0\0\0", undefined],
])("G8: the client's pid %s", (_, commandLine, pid) => {
  expect(shownPid(commandLine)).toBe(pid);
});

test("G8: a process whose command line shows no client has none", () => {
  const here = processStat(process.pid);
  if (!here) throw new Error("/proc does not know this process");
  expect(() => clientOf(here)).toThrow("does not show whom it serves");
  expect(() => clientOf({ ...here, startTime: "1" })).toThrow("has ended");
});
