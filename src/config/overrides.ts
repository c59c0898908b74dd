import type { Profile } from "../policy/profile.ts";
import { isStorePath } from "../store/store-path.ts";
import type { Config, ListenConfig } from "./config.ts";
import { ConfigError } from "./config-error.ts";
import { suggestion } from "./nearest.ts";

/** What the command line overrides. */
export interface Overrides {
  /** `--upstream`: the real daemon's socket. */
  readonly upstream?: string | undefined;
  /** `--listen`: one more static socket. */
  readonly listen?: string | undefined;
  /** `--profile`, `--view` and `--allow` of that socket. */
  readonly profile?: string | undefined;
  readonly view?: readonly string[] | undefined;
  readonly allow?: readonly string[] | undefined;
}

function wrong(key: string, message: string): ConfigError {
  return new ConfigError(undefined, [{ line: undefined, key, message }]);
}

/**
 * The profile of a name.
 *
 * @throws ConfigError if there is none; `key` says where the name comes from.
 */
export function profileNamed(config: Config, name: string, key = "--profile"): Profile {
  const profile = config.profiles.get(name);
  if (profile === undefined) {
    throw wrong(key, `there is no profile "${name}"${suggestion(name, [...config.profiles.keys()])}`);
  }
  return profile;
}

/**
 * Where a view starts, from the command line: `empty`, `store`, `build`, or store paths.
 *
 * @throws ConfigError if it is none of these.
 */
export function parseView(words: readonly string[], storeDir: string): ListenConfig["view"] {
  const [first] = words;
  if (words.length === 1 && (first === "empty" || first === "store" || first === "build")) return first;
  for (const word of words) {
    if (!isStorePath(word, storeDir)) {
      throw wrong(
        "--view",
        `expected empty, store, build, or store paths (${storeDir}/HASH-NAME), but it is ${word}`,
      );
    }
  }
  return words.length === 0 ? "empty" : words;
}

/** The configuration with the overrides of the command line. Throws {@link ConfigError} as its parts do. */
export function withOverrides(config: Config, overrides: Overrides): Config {
  const upstream =
    overrides.upstream === undefined
      ? config.upstream
      : { ...config.upstream, socket: overrides.upstream, command: undefined };
  if (overrides.listen === undefined) return { ...config, upstream };
  const path = overrides.listen;
  const profile = profileNamed(config, overrides.profile ?? "build");
  const listen = {
    path,
    profile,
    view: overrides.view === undefined ? profile.view : parseView(overrides.view, config.upstream.storeDir),
    allowUids: overrides.allow ?? ["@nixbld"],
  };
  // The command line wins: a socket that the file also names is opened once, as given here.
  return { ...config, upstream, listen: [...config.listen.filter((other) => other.path !== path), listen] };
}
