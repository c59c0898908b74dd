// Runs the tests, the demo and the bench on the project's own Node, whatever Node and npm started it (Node 20 and
// npm 9 at least), after installing the dependencies if need be. Plain JavaScript: nothing is installed yet.
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const modules = join(root, "node_modules");
const lock = join(root, "package-lock.json");
/** Says which lock file node_modules was made from. */
const stamp = join(modules, ".nix-broker-lock");
const wanted = 24;

const tasks = {
  test: { script: join("node_modules", "vitest", "vitest.mjs"), first: ["run"] },
  demo: { script: join("scripts", "demo.ts"), first: [] },
  bench: { script: join("bench", "main.ts"), first: [] },
};

const fail = (message) => {
  console.error(`nix-broker: ${message}`);
  process.exit(1);
};

const majorOf = (node) => {
  const { stdout, status } = spawnSync(node, ["--version"], { encoding: "utf8" });
  return status === 0 ? Number(/^v(\d+)\./.exec(stdout)?.[1]) : undefined;
};

const lockHash = () => createHash("sha256").update(readFileSync(lock)).digest("hex");

const isInstalled = () => {
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lockHash()) return true;
  // Installed by hand: npm's own copy of the lock file is as old as the installation.
  const copy = join(modules, ".package-lock.json");
  return existsSync(copy) && statSync(copy).mtimeMs >= statSync(lock).mtimeMs;
};

const npm = (...args) => {
  // Run by npm we are told where it is; otherwise it is looked for like any command.
  const script = process.env.npm_execpath;
  const [command, first] = script?.endsWith(".js") ? [process.execPath, [script]] : ["npm", []];
  return spawnSync(command, [...first, ...args], { cwd: root, stdio: "inherit" });
};

const install = () => {
  console.error("nix-broker: installing the dependencies (npm ci)");
  const { status, error } = npm("ci", "--no-audit", "--no-fund");
  if (error !== undefined) fail(`npm could not be started: ${error.message}. Install npm 9 or later.`);
  if (status === 0) return;
  // `npm ci` refuses a lock file without the optional packages of other platforms, and writes such a lock file
  // where the registry lacks them. `npm install` takes the same versions and leaves out what cannot be had.
  console.error("nix-broker: npm ci failed, see above; trying npm install with the same lock file");
  if (npm("install", "--no-save", "--no-audit", "--no-fund").status !== 0) {
    fail("npm install failed too; its messages are above. Is the package registry reachable?");
  }
};

/** The project's Node. The package `node` puts it in place when it is installed, unless npm blocks that. */
const projectNode = () => {
  const own = join(modules, "node", "bin", "node");
  if (majorOf(own) === wanted) return own;
  const setUp = join(modules, "node", "installArchSpecificPackage.js");
  if (existsSync(setUp)) {
    console.error(`nix-broker: npm did not run the install script of the package "node"; running it`);
    spawnSync(process.execPath, [setUp], { cwd: dirname(setUp), stdio: ["ignore", 2, 2] });
    if (majorOf(own) === wanted) return own;
  }
  if (majorOf(process.execPath) === wanted) return process.execPath;
  return fail(
    `there is no Node ${wanted}: the package "node" has none for this machine (${process.platform} ${process.arch}), or its install script failed. Install Node ${wanted} and run this again with it.`,
  );
};

const run = (node, { script, first }, args) => {
  if (!existsSync(join(root, script))) fail(`${script} is not there`);
  const path = [join(modules, ".bin"), dirname(node), process.env.PATH].join(delimiter);
  const child = spawn(node, [join(root, script), ...first, ...args], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, PATH: path },
  });
  // A key press reaches the child by itself; it cleans up, and says how it ended.
  process.on("SIGINT", () => {});
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  child.on("error", (error) => fail(`${node} could not be started: ${error.message}`));
  child.on("exit", (code, signal) => {
    process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
  });
};

const [name, ...args] = process.argv.slice(2);
const task = Object.hasOwn(tasks, name ?? "") ? tasks[name] : undefined;
if (task === undefined) fail(`usage: node scripts/run.mjs ${Object.keys(tasks).join("|")} [ARGUMENTS]`);
if (!isInstalled()) {
  install();
  writeFileSync(stamp, lockHash());
}
run(projectNode(), task, args);
