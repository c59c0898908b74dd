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
function count(name: string, files: Record<string, string>, ...others: string[]) {
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
      "--retry=1",
      `--outputFile.json=${report}`,
    ],
    { cwd: project, encoding: "utf8" },
  );
  const counted = spawnSync(
    process.execPath,
    [join(root, "scripts/count-tests.mjs"), report, String(status), ...others],
    { encoding: "utf8" },
  );
  const lines = counted.stdout.trimEnd().split("\n");
  return { code: counted.status, last: lines.at(-1), above: lines.slice(0, -1) };
}

const good = 'test("a", () => { expect(1).toBe(1); }); test("b", () => {});';

test("all passed", () => {
  expect(count("good", { "a.test.js": good })).toMatchObject({ code: 0, last: "2 passed, 0 failed" });
});

test("one failed", () => {
  expect(count("bad", { "a.test.js": `${good} test("c", () => { expect(1).toBe(2); });` })).toMatchObject({
    code: 1,
    last: "2 passed, 1 failed",
  });
});

test("a file that cannot be loaded is a failure", () => {
  expect(count("broken", { "a.test.js": good, "b.test.js": 'import "./nothing.js";' })).toMatchObject({
    code: 1,
    last: "2 passed, 1 failed",
  });
});

test("an error outside of the tests is a failure", () => {
  const stray =
    'test("a", async () => { Promise.reject(new Error("x")); await new Promise(setImmediate); });';
  expect(count("stray", { "a.test.js": stray })).toMatchObject({ code: 1, last: "1 passed, 1 failed" });
});

test("no test at all is a failure", () => {
  expect(count("none", {})).toMatchObject({ code: 1, last: "0 passed, 1 failed" });
});

test("what passed only when it was tried again is counted, and named", () => {
  const flaky = `${good} let tries = 0; test("c", () => { expect(tries++).toBe(1); });`;
  const { code, last, above } = count("flaky", { "a.test.js": flaky });
  expect({ code, last }).toEqual({ code: 0, last: "3 passed, 0 failed" });
  expect(above[0]).toBe("1 passed only when tried again:");
  expect(above[1]).toMatch(/a\.test\.js: c$/);
  expect(above[2]).toContain("expected +0 to be 1");
});

test("other things that ran count as tests", () => {
  expect(count("others", { "a.test.js": good }, "the demo=0", "another=skipped: no reason")).toEqual({
    code: 0,
    last: "3 passed, 0 failed",
    above: ["another: skipped: no reason", "1 skipped"],
  });
  expect(count("bad-others", { "a.test.js": good }, "the demo=7")).toEqual({
    code: 1,
    last: "2 passed, 1 failed",
    above: ["the demo: exit code 7"],
  });
});
