import { spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
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
      "nix-broker: usage: node scripts/run.mjs test|demo|bench|soak|check|format|docs|build|package [ARGUMENTS]\n",
  });
  expect(run("toString").status).toBe(1);
  expect(run("bench")).toMatchObject({ status: 1, stderr: "nix-broker: bench/main.ts does not exist\n" });
});

test("a new installation, which removes the project's Node that runs the script, is finished by another", () => {
  const fresh = join(folder, "fresh");
  for (const path of ["scripts/run.mjs", "package.json", "package-lock.json"]) {
    cpSync(join(root, path), join(fresh, path));
  }
  writeFileSync(join(fresh, "scripts/demo.ts"), 'console.log("the demo runs");\n');
  const bin = join(fresh, "node_modules/node/bin");
  mkdirSync(bin, { recursive: true });
  cpSync(process.execPath, join(bin, "node"));
  // In place of npm: what `npm ci --ignore-scripts` leaves of the package "node", whose install script puts its Node there.
  const setUp = `require("node:fs").cpSync(${JSON.stringify(process.execPath)}, "bin/node")`;
  writeFileSync(
    join(fresh, "npm.js"),
    `import { rmSync, writeFileSync } from "node:fs";
rmSync(${JSON.stringify(bin)}, { recursive: true });
writeFileSync(${JSON.stringify(join(dirname(bin), "installArchSpecificPackage.js"))}, ${JSON.stringify(setUp)});
`,
  );
  const result = spawnSync(join(bin, "node"), [join(fresh, "scripts/run.mjs"), "demo"], {
    encoding: "utf8",
    env: {
      ...process.env,
      npm_execpath: join(fresh, "npm.js"),
      PATH: [bin, dirname(process.execPath)].join(delimiter),
    },
  });
  expect(result).toMatchObject({ status: 0, stdout: "the demo runs\n" });
});
