/**
 * nix-broker as it is shipped: one bundle, made before the tests start. From the sources each start of it would take three
 * times as long, and a test starts it dozens of times: service, linker, hooks, commands.
 */
import { existsSync, lstatSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { buildAll } from "../scripts/build.ts";

const projectRoot = join(import.meta.dirname, "..");
/** Inside the project, so that packages with native parts are found. */
const folder = join(projectRoot, ".cache/program");

export const program = {
  /** What people run. */
  wrapper: join(folder, "nix-broker"),
  /** The commands and the service, for Node to run. */
  cli: join(folder, "nix-broker.js"),
  /** Linker and hooks, for Node to run. */
  root: join(folder, "nix-broker-root.js"),
  preBuildHook: join(folder, "pre-build-hook"),
  postBuildHook: join(folder, "post-build-hook"),
  /** The folder of the live page. */
  page: join(folder, "page"),
} as const;

/** Whether there was a C compiler to make the hooks with; without one they are links to scripts. */
export function hooksAreCompiled(): boolean {
  return lstatSync(program.preBuildHook).isFile();
}

/** What the bundle is made of. */
const sources = ["src", "scripts/build.ts", "scripts/build-hooks.ts", "package.json", "package-lock.json"];

function newest(path: string): number {
  const stats = statSync(path);
  if (!stats.isDirectory()) return stats.mtimeMs;
  return Math.max(stats.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}

/** Bundles the program, unless it is there and newer than its sources: another run of the tests may be using it. */
export async function buildProgram(): Promise<void> {
  const made = existsSync(program.root) ? statSync(program.root).mtimeMs : 0;
  if (sources.every((source) => newest(join(projectRoot, source)) < made)) return;
  const fresh = `${folder}-${process.pid}`;
  await buildAll(fresh);
  rmSync(folder, { recursive: true, force: true });
  renameSync(fresh, folder);
}
