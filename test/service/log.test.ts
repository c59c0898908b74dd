/** What the service and root's programs write on standard error, when that cannot be written. */
import { spawnSync } from "node:child_process";
import { openSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const source = join(import.meta.dirname, "../../src/service");
const root = join(import.meta.dirname, "../../src/root/main.ts");

/** What the lines of code print, with standard error on a full disk. */
function run(code: string): string {
  const { stdout, status, signal } = spawnSync(process.execPath, ["--input-type=module", "--eval", code], {
    stdio: ["ignore", "pipe", openSync("/dev/full", "w")],
    encoding: "utf8",
  });
  return `${stdout}${signal ?? status}`;
}

test("G8: a full disk behind the log ends nothing, and what cannot be written takes no memory", () => {
  expect(
    run(`
      import { makeLog } from "${source}/log.ts";
      const log = makeLog("info");
      const before = process.memoryUsage().rss;
      for (let i = 0; i < 20_000; i++) log.info({ text: "x".repeat(10_000) }, "a line");
      console.log(process.memoryUsage().rss - before < 128 * 1024 * 1024 ? "serves" : "has grown");
    `),
  ).toBe("serves\n0");
});

test("G8: what fails, and nobody waited for, is told, and does not end the service", () => {
  expect(
    run(`
      import { tellRejections } from "${source}/own-faults.ts";
      const ignore = tellRejections({ error: ({ error }, message) => console.log(message, error.split("\\n")[0]) });
      Promise.reject(new Error("a fault"));
      await new Promise((resolve) => setTimeout(resolve, 10));
      ignore();
      console.log("serves");
    `),
  ).toBe(
    "a bug of nix-broker: something failed that nobody waited for; please report it Error: a fault\nserves\n0",
  );
});

test("G8: a full disk behind the log of root's programs ends nothing either", () => {
  const { status } = spawnSync(process.execPath, [root, "nonsense"], {
    stdio: ["ignore", "ignore", openSync("/dev/full", "w")],
  });
  // What it says of its usage, and not 1, for an error that nobody caught.
  expect(status).toBe(2);
});
