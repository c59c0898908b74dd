import type { Config } from "./config.ts";

/** The keys of the root programs' file, in the order they are written. */
export const rootConfigKeys = [
  "store_dir",
  "upstream_socket",
  "nix_store",
  "runtime_dir",
  "state_dir",
  "gcroots_dir",
  "service_user",
  "next_pre_build_hook",
  "next_post_build_hook",
] as const;

/**
 * The small part of the configuration that the root programs read, in a form that needs no TOML parser: one
 * `key=value` per line, without quoting, every key of {@link rootConfigKeys} once, in order. An empty value
 * means none. The schema keeps control characters, and so newlines, out of every value.
 */
export function rootConfigText(config: Config): string {
  const values: Record<(typeof rootConfigKeys)[number], string> = {
    store_dir: config.upstream.storeDir,
    upstream_socket: config.upstream.command === undefined ? config.upstream.socket : "",
    nix_store: config.upstream.nixStore,
    runtime_dir: config.runtime.dir,
    state_dir: config.runtime.stateDir,
    gcroots_dir: config.hooks.gcrootsDir,
    service_user: config.runtime.user,
    next_pre_build_hook: config.hooks.nextPreBuildHook,
    next_post_build_hook: config.hooks.nextPostBuildHook,
  };
  return rootConfigKeys.map((key) => `${key}=${values[key]}\n`).join("");
}
