// Runs the scripts of package.json on the project's own Node, whatever Node and npm started it (at least Node
// 20 and npm 9), after installing the dependencies if necessary. Plain JavaScript: nothing is installed yet.
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
const { engines } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
const wanted = Number(/\d+/.exec(engines.node)[0]);

const biome = "node_modules/@biomejs/biome/bin/biome";
/** Each is one or more scripts, run one after another until one fails; the last gets the arguments. */
const tasks = {
  test: [["node_modules/vitest/vitest.mjs", "run"]],
  demo: [["scripts/demo.ts"]],
  bench: [["bench/main.ts"]],
  soak: [["soak/main.ts"]],
  check: [
    ["node_modules/typescript/bin/tsc", "--noEmit"],
    ["node_modules/typescript/bin/tsc", "--noEmit", "--project", "src/page"],
    [biome, "check"],
  ],
  format: [[biome, "check", "--write"]],
  docs: [["scripts/docs.ts"]],
  build: [["scripts/build.ts"]],
  package: [["packaging/main.ts"]],
};

function say(message) {
  console.error(`nix-broker: ${message}`);
}

function fail(message) {
  say(message);
  process.exit(1);
}

/** Runs a program, and prints its output only if it fails. */
function quietly(command, args, cwd) {
  const { status, signal, error, stdout, stderr } = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (signal !== null && signal !== undefined) process.exit(128 + constants.signals[signal]);
  return { done: status === 0, error, said: `${stdout ?? ""}${stderr ?? ""}` };
}

/** A Node that can be started: `npm ci` removes the one that runs us, if it is the project's own. */
function anyNode() {
  return existsSync(process.execPath) ? process.execPath : "node";
}

function majorOf(node) {
  const { done, said } = quietly(node, ["--version"]);
  return done ? Number(/^v(\d+)\./.exec(said)?.[1]) : undefined;
}

function lockHash() {
  return createHash("sha256").update(readFileSync(lock)).digest("hex");
}

function isInstalled() {
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === lockHash()) return true;
  // Installed by hand: npm's own copy of the lock file is as old as the installation.
  const copy = join(modules, ".package-lock.json");
  return existsSync(copy) && statSync(copy).mtimeMs >= statSync(lock).mtimeMs;
}

/** No package's install script runs, as with npm 12 by itself: the one that is needed, projectNode runs. */
function npm(command, ...options) {
  // If npm runs us, it says where it is; otherwise it is looked up like any command.
  const script = process.env.npm_execpath;
  const [program, first] = script?.endsWith(".js") ? [anyNode(), [script]] : ["npm", []];
  return quietly(
    program,
    [...first, command, ...options, "--ignore-scripts", "--no-audit", "--no-fund"],
    root,
  );
}

function install() {
  say("installing the dependencies (npm ci, once)");
  const clean = npm("ci");
  if (clean.error !== undefined)
    fail(`npm could not be started: ${clean.error.message}. Install npm 9 or later.`);
  if (clean.done) return;
  // `npm ci` refuses a lock file without the optional packages of other platforms, and writes such a lock file
  // where the registry lacks them. `npm install` takes the same versions and leaves out what is not available.
  say("npm ci failed; trying npm install with the same lock file");
  const plain = npm("install", "--no-save");
  if (plain.done) return;
  console.error(`\nnpm ci said:\n${clean.said}\nnpm install said:\n${plain.said}`);
  fail("neither npm ci nor npm install could install the dependencies. Is the package registry reachable?");
}

/** The project's Node. The install script of the package `node` puts it in place. */
function projectNode() {
  const own = join(modules, "node", "bin", "node");
  if (majorOf(own) === wanted) return own;
  const setUp = join(modules, "node", "installArchSpecificPackage.js");
  let said = "";
  if (existsSync(setUp)) {
    say(`fetching Node ${wanted} for this project alone (once)`);
    said = quietly(anyNode(), [setUp], dirname(setUp)).said;
    if (majorOf(own) === wanted) return own;
  }
  if (majorOf(process.execPath) === wanted) return process.execPath;
  console.error(said);
  return fail(
    `there is no Node ${wanted}: the package "node" has none for this machine (${process.platform} ${process.arch}), or its install script failed. Install Node ${wanted} and run this again with it.`,
  );
}

function start(node, [script, ...first], args, whenDone) {
  if (!existsSync(join(root, script))) fail(`${script} does not exist`);
  const path = [dirname(node), join(modules, ".bin"), process.env.PATH].join(delimiter);
  const child = spawn(node, [join(root, script), ...first, ...args], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, PATH: path },
  });
  const pass = () => child.kill("SIGTERM");
  process.on("SIGTERM", pass);
  child.on("error", (error) => fail(`${node} could not be started: ${error.message}`));
  child.on("exit", (code, signal) => {
    process.off("SIGTERM", pass);
    process.exitCode = code ?? 128 + (constants.signals[signal] ?? 0);
    if (code === 0) whenDone();
  });
}

function run(node, [step, ...later], args) {
  start(node, step, later.length === 0 ? args : [], () => {
    if (later.length > 0) run(node, later, args);
  });
}

const [name, ...args] = process.argv.slice(2);
const task = Object.hasOwn(tasks, name ?? "") ? tasks[name] : undefined;
if (task === undefined) fail(`usage: node scripts/run.mjs ${Object.keys(tasks).join("|")} [ARGUMENTS]`);
if (!isInstalled()) {
  install();
  writeFileSync(stamp, lockHash());
}
const node = projectNode();
// A key press reaches the child by itself; it cleans up, and says how it ended.
process.on("SIGINT", () => {});
run(node, task, args);
