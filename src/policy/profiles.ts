import { defaultLimits, type Limits, tighterLimits } from "./limits.ts";
import type { OperationGroup, Profile } from "./profile.ts";

/** The names of the profiles that exist without any configuration. */
export const builtinProfileNames = ["query", "instantiate", "pure", "build", "agent"] as const;
export type BuiltinProfileName = (typeof builtinProfileNames)[number];

function groups(...allowed: OperationGroup[]): Record<OperationGroup, boolean> {
  return {
    query: allowed.includes("query"),
    read: allowed.includes("read"),
    add: allowed.includes("add"),
    build: allowed.includes("build"),
  };
}

const GiB = 1024 ** 3;

/** A jail lives long and is trusted little: its limits are tighter than those of a build, whose outer build ends. */
const agentLimits: Partial<Limits> = {
  bodyBytes: 2 * GiB,
  bytesAdded: 16 * GiB,
  connections: 32,
  concurrentBuilds: 4,
  buildRate: 600,
  depth: 1,
  buildTimeout: 4 * 3600,
};

/**
 * They only choose machines. `kvm` and `nixos-test` bring a device into the sandbox: the administrator has to
 * allow them.
 */
const MACHINE_CHOOSING = ["benchmark", "big-parallel", "gccarch-*"] as const;

/** Proxies, certificates and mirrors: what nixpkgs' fetchers use from the daemon's environment, except secrets. */
const FETCHERS_VARIABLES = [
  "http_proxy",
  "https_proxy",
  "ftp_proxy",
  "all_proxy",
  "no_proxy",
  "HTTP_PROXY",
  "HTTPS_PROXY",
  "FTP_PROXY",
  "ALL_PROXY",
  "NO_PROXY",
  "SOCKS_SERVER",
  "GIT_PROXY_COMMAND",
  "GOPROXY",
  "NIX_CONNECT_TIMEOUT",
  "NIX_CURL_FLAGS",
  "NIX_GIT_SSL_CAINFO",
  "NIX_HASHED_MIRRORS",
  "NIX_MIRRORS_*",
  "NIX_NPM_REGISTRY",
  "NIX_SSL_CERT_FILE",
] as const;

/**
 * The built-in profiles.
 *
 * @param systems the systems that this machine builds for itself; `builtin` is always among the allowed ones.
 * @param limits the limits of all of them, from `[limits]`; `agent` has tighter ones of its own.
 */
export function builtinProfiles(
  systems: readonly string[],
  limits: Limits = defaultLimits,
): Record<BuiltinProfileName, Profile> {
  const base = {
    admitFixedOutputs: false,
    systems: ["builtin", ...systems],
    requiredSystemFeatures: MACHINE_CHOOSING,
    impureEnvVars: FETCHERS_VARIABLES,
    weakHashes: false,
    substitute: false,
    innerLogs: "lines",
    contentAddressed: false,
    view: "empty",
    limits,
  } as const;
  const pure = {
    ...base,
    name: "pure",
    summary: "Query, add and build, without network access: fixed outputs only if they already exist.",
    operations: groups("query", "read", "add", "build"),
    fixedOutputs: "known",
  } as const;
  return {
    query: {
      ...base,
      name: "query",
      summary: "Ask about the paths of the view and read them.",
      operations: groups("query", "read"),
      fixedOutputs: "deny",
    },
    instantiate: {
      ...base,
      name: "instantiate",
      summary: "Query, and add sources and derivations, which nothing here builds.",
      operations: groups("query", "read", "add"),
      // A derivation that is only instantiated fetches nothing.
      fixedOutputs: "allow",
    },
    pure,
    build: {
      ...pure,
      name: "build",
      summary: "Query, add and build, including fixed-output derivations with network access.",
      fixedOutputs: "allow",
      weakHashes: true,
    },
    agent: {
      ...pure,
      name: "agent",
      summary: "Like pure, for a jail that sees the whole store, with tighter limits.",
      view: "store",
      substitute: true,
      limits: tighterLimits(limits, agentLimits),
    },
  };
}
