import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "nix-broker-run-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A copy of the project's outside, with the installed modules. */
const project = join(folder, "project");
for (const path of ["scripts/run.mjs", "package.json", "package-lock.json"]) {
  cpSync(join(root, path), join(project, path));
}
utimesSync(join(project, "package-lock.json"), 0, 0);
symlinkSync(join(root, "node_modules"), join(project, "node_modules"));

function run(...args: string[]) {
  return spawnSync(process.execPath, [join(project, "scripts/run.mjs"), ...args], { encoding: "utf8" });
}

test("scripts run on the project's own Node, whichever started them, with their arguments and exit code", () => {
  const { engines } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  writeFileSync(
    join(project, "scripts/demo.ts"),
    "const words: string[] = process.argv.slice(2);\nconsole.log(process.version, ...words);\nprocess.exitCode = 7;\n",
  );
  const { status, stdout } = run("demo", "one", "two words");
  expect(stdout).toMatch(new RegExp(`^v${engines.node.replace(/^>=/, "")}\\.\\S+ one two words\\n$`));
  expect(status).toBe(7);
});

test("an unknown task and a script that is not there are told", () => {
  expect(run("nonsense")).toMatchObject({
    status: 1,
    stderr:
      "nix-broker: usage: node scripts/run.mjs test|demo|bench|soak|check|format|docs|build [ARGUMENTS]\n",
  });
  expect(run("toString").status).toBe(1);
  expect(run("bench")).toMatchObject({ status: 1, stderr: "nix-broker: bench/main.ts does not exist\n" });
});
