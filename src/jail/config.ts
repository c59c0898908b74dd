/** The configuration of a jail's broker: the user's own, or the one that is named, with an audit that the user can write. */
import { join } from "node:path";
import type { Config } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { profileNamed } from "../config/overrides.ts";
import { currentUser, ownPlaces, systemPlaces } from "../config/places.ts";
import type { Profile } from "../policy/profile.ts";
import { urlPatternProblem } from "../policy/url-pattern.ts";
import { patternsOf, presetNames } from "../policy/url-presets.ts";
import { JailError } from "./jail-error.ts";

/** @param path `--config` @throws ConfigError */
export async function jailConfig(path: string | undefined, allowTrusted: boolean): Promise<Config> {
  const config = await loadConfig({ path, own: true });
  const { upstream, audit, runtime } = config;
  const own = ownPlaces(process.env, currentUser());
  // A named file may be that of the system's broker, for its profiles.
  const isTheirs = runtime.stateDir === systemPlaces.stateDir;
  return {
    ...config,
    upstream: { ...upstream, allowTrusted: upstream.allowTrusted || allowTrusted, pool: 1 },
    audit: own && isTheirs ? { ...audit, path: join(own.stateDir, "audit") } : audit,
  };
}

interface ProfileRequest {
  readonly name: string;
  /** `--allow-url`: nix-broker also fetches what these match. */
  readonly patterns: readonly string[];
  readonly withNetwork: boolean;
}

/**
 * The profile that a jail has. Without the network, its builds do not get it either: a fixed-output derivation's builder
 * would be the jail's own code, and could send anything anywhere.
 * @throws ConfigError, JailError
 */
export function jailProfile(config: Config, { name, patterns, withNetwork }: ProfileRequest): Profile {
  const named = profileNamed(config, name);
  const profile: Profile =
    named.fixedOutputs === "allow" && !withNetwork ? { ...named, fixedOutputs: "known" } : named;
  for (const pattern of patterns) {
    const problem = presetNames.includes(pattern) ? undefined : urlPatternProblem(pattern);
    if (problem !== undefined) throw new JailError(`--allow-url ${pattern}: ${problem}`);
  }
  const { fixedOutputs } = profile;
  if (patterns.length === 0 || fixedOutputs === "allow") return profile;
  const before = typeof fixedOutputs === "string" ? [] : fixedOutputs;
  return { ...profile, fixedOutputs: [...before, ...patterns.flatMap(patternsOf)] };
}
