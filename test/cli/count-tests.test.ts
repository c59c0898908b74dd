import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "nix-broker-count-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Runs real test files with the real vitest, and counts its report as .ci/run does. */
function count(name: string, files: Record<string, string>) {
  const project = join(folder, name);
  mkdirSync(project);
  writeFileSync(join(project, "vitest.config.mjs"), "export default { test: { globals: true } };");
  for (const [file, text] of Object.entries(files)) writeFileSync(join(project, file), text);
  const report = join(project, "report.json");
  const { status } = spawnSync(
    process.execPath,
    [
      join(root, "node_modules/vitest/vitest.mjs"),
      "run",
      "--root",
      project,
      "--reporter=json",
      `--outputFile.json=${report}`,
    ],
    { cwd: project, encoding: "utf8" },
  );
  const counted = spawnSync(
    process.execPath,
    [join(root, "scripts/count-tests.mjs"), report, String(status)],
    { encoding: "utf8" },
  );
  return { code: counted.status, last: counted.stdout.trimEnd().split("\n").at(-1) };
}

const good = 'test("a", () => { expect(1).toBe(1); }); test("b", () => {});';

test("all passed", () => {
  expect(count("good", { "a.test.js": good })).toEqual({ code: 0, last: "2 passed, 0 failed" });
});

test("one failed", () => {
  expect(count("bad", { "a.test.js": `${good} test("c", () => { expect(1).toBe(2); });` })).toEqual({
    code: 1,
    last: "2 passed, 1 failed",
  });
});

test("a file that cannot be loaded is a failure", () => {
  expect(count("broken", { "a.test.js": good, "b.test.js": 'import "./nothing.js";' })).toEqual({
    code: 1,
    last: "2 passed, 1 failed",
  });
});

test("an error outside of the tests is a failure", () => {
  const stray =
    'test("a", async () => { Promise.reject(new Error("x")); await new Promise(setImmediate); });';
  expect(count("stray", { "a.test.js": stray })).toEqual({ code: 1, last: "1 passed, 1 failed" });
});

test("no test at all is a failure", () => {
  expect(count("none", {})).toEqual({ code: 1, last: "0 passed, 1 failed" });
});
