/**
 * Puts the hooks into a folder: the scripts, and beside them what nix.conf names, `pre-build-hook` and `post-build-hook`. These
 * are compiled where that can be done, and else links to the scripts, which do the same and cost each build a shell.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const sources = fileURLToPath(new URL("../src/root", import.meta.url));

/** @returns whether both are compiled */
export function buildHooks(outdir: string, compiler = process.env.CC || "cc"): boolean {
  return ["pre", "post"]
    .map((when) => {
      const hook = join(outdir, `${when}-build-hook`);
      copyFileSync(join(sources, `${when}-build-hook.sh`), `${hook}.sh`);
      chmodSync(`${hook}.sh`, 0o755);
      if (compileHook(when, hook, compiler)) return true;
      rmSync(hook, { force: true });
      symlinkSync(`${when}-build-hook.sh`, hook);
      return false;
    })
    .every(Boolean);
}

/**
 * @param options without libraries, if nothing else is asked for: to load them takes a third of its time, and another machine may
 *   have older ones
 * @returns whether it could be compiled
 */
export function compileHook(when: string, hook: string, compiler: string, options = ["-static"]): boolean {
  const argv = ["-O2", "-Wall", "-Wextra", ...options, `-DWHEN="${when}"`, "-o", hook];
  return (
    spawnSync(compiler, [...argv, join(sources, "hook-prefilter.c")], {
      stdio: ["ignore", "ignore", "inherit"],
    }).status === 0
  );
}
