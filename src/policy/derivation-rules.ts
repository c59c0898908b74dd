/**
 * Which derivations a sandbox may add and build (docs/recursive-nix.md, "What an inner derivation may not do").
 * Judged on the parsed text, when it is added and again, with everything it depends on, at each build request.
 */

import { ContentAddressError, parseOutputHashAlgorithm } from "../store/content-address.ts";
import { type Derivation, DerivationError, outputKind } from "../store/derivation.ts";
import { derivationAttributes } from "../store/derivation-attributes.ts";
import { isStorePath, type StorePath } from "../store/store-path.ts";
import { forbiddenSystemFeatures, type Profile } from "./profile.ts";
import { matchesUrlPattern } from "./url-pattern.ts";
import type { ViewQueries } from "./view-queries.ts";

/** The feature by which a derivation asks for a sandbox of its own at the broker. */
export const OPT_IN_FEATURE = "nix-broker";

/** Attributes that open the sandbox, or make a result depend on the host. */
const OPENING_FLAGS = ["__noChroot", "__impure"] as const;
const OPENING_TEXTS = [
  "__impureHostDeps",
  "__propagatedImpureHostDeps",
  "sandboxProfile",
  "__sandboxProfile",
] as const;

/**
 * Variables that a fixed-output derivation may take from the daemon's environment: proxies, and what the
 * fetchers of nixpkgs name (without those no package of nixpkgs could be built).
 */
const IMPURE_ENV_VARS =
  /^(?:(?:https?|ftp|all|no)_proxy|(?:HTTPS?|FTP|ALL|NO)_PROXY|NIX_CURL_FLAGS|NIX_HASHED_MIRRORS|NIX_CONNECT_TIMEOUT|NIX_MIRRORS_[A-Za-z0-9_]+|NIX_SSL_CERT_FILE|GIT_PROXY_COMMAND|NIX_GIT_SSL_CAINFO|SOCKS_SERVER)$/;

const STRONG_HASHES = new Set(["sha256", "sha512"]);

/** `/bin/sh` is there in every sandbox that Nix makes, and the usual builder of small derivations. */
const SANDBOX_SHELL = "/bin/sh";

export type JudgedAt = "add" | "build";

/**
 * Judges one derivation by itself.
 * @param references what the store has, or will have, as the references of the .drv file
 * @returns why it is refused, or undefined.
 */
export function refuseDerivation(
  derivation: Derivation,
  references: Iterable<StorePath>,
  profile: Profile,
  storeDir: string,
): string | undefined {
  try {
    return (
      refuseInputs(derivation, references) ??
      refuseAttributes(derivation, profile) ??
      refuseBuilder(derivation, profile, storeDir) ??
      refuseOutputs(derivation, profile)
    );
  } catch (error) {
    if (error instanceof DerivationError || error instanceof ContentAddressError) return error.message;
    throw error;
  }
}

/**
 * Judges a fixed-output derivation that is to be built. Until then it is a text like any other, and an
 * evaluation that never builds it may add it (unless the profile says `deny`).
 */
export async function refuseFixedOutput(
  derivation: Derivation,
  profile: Profile,
  view: Pick<ViewQueries, "info">,
  at: JudgedAt,
): Promise<string | undefined> {
  const policy = profile.fixedOutputs;
  if (policy === "allow" || !isFixedOutput(derivation)) return undefined;
  if (policy === "deny") return `the profile '${profile.name}' allows no fixed-output derivations`;
  if (at === "add") return undefined;
  const known = await Promise.all([...derivation.outputs.values()].map((output) => view.info(output.path)));
  if (known.every((info) => info !== undefined)) return undefined;
  if (policy === "known")
    return `the profile '${profile.name}' allows fixed-output derivations only where the output is in the view already`;
  if (derivation.builder !== "builtin:fetchurl")
    return `the profile '${profile.name}' allows fixed-output derivations only by builtin:fetchurl`;
  const url = derivation.env.get("url") ?? "";
  if (namesAnotherUrl(derivation, url))
    return `the profile '${profile.name}' allows fetching only where the environment and the structured attributes name one and the same URL`;
  if (policy.some((pattern) => matchesUrlPattern(pattern, url))) return undefined;
  return `the profile '${profile.name}' does not allow fetching that URL`;
}

/**
 * Whether anything in the derivation names another URL than its environment does. builtin:fetchurl reads the
 * environment, whatever `__json` says, and versions to come may do otherwise; `<nix/fetchurl.nix>` sets `urls` too.
 */
function namesAnotherUrl(derivation: Derivation, url: string): boolean {
  const { json } = derivationAttributes(derivation);
  const other = (named: unknown): boolean => named !== url;
  if (json?.has("url") && other(json.get("url"))) return true;
  const urls = json?.has("urls") ? json.get("urls") : [];
  if (!Array.isArray(urls) || urls.some(other)) return true;
  return (derivation.env.get("urls") ?? "").split(/\s+/).some((word) => word !== "" && other(word));
}

/** Whether the derivation fetches: its output is fixed, and its builder has the network. */
export function isFixedOutput(derivation: Derivation): boolean {
  return [...derivation.outputs.values()].some((output) => outputKind(output) === "fixed");
}

/** Whether the derivation asks for a sandbox of its own at the broker. @throws DerivationError */
export function optsIn(derivation: Derivation): boolean {
  return derivationAttributes(derivation).list("requiredSystemFeatures").includes(OPT_IN_FEATURE);
}

/** Upstream never compares these: what the text names but the references do not would be read unseen. */
function refuseInputs(derivation: Derivation, references: Iterable<StorePath>): string | undefined {
  const declared = new Set(references);
  const named = new Set([...derivation.inputSrcs, ...derivation.inputDrvs.keys()]);
  for (const path of named)
    if (!declared.has(path)) return `its input '${path}' is not among the references it was added with`;
  for (const path of declared)
    if (!named.has(path)) return `its reference '${path}' is not one of its inputs`;
  return undefined;
}

function refuseAttributes(derivation: Derivation, profile: Profile): string | undefined {
  const attributes = derivationAttributes(derivation);
  for (const name of OPENING_FLAGS) if (attributes.flag(name)) return `it sets ${name}`;
  for (const name of OPENING_TEXTS)
    if (attributes.has(name) && attributes.text(name) !== "") return `it sets ${name}`;
  for (const name of attributes.list("impureEnvVars"))
    if (!IMPURE_ENV_VARS.test(name)) return `it asks for the daemon's variable '${name}' (impureEnvVars)`;
  for (const feature of attributes.list("requiredSystemFeatures")) {
    if ((forbiddenSystemFeatures as readonly string[]).includes(feature))
      return `it requires the system feature '${feature}', which goes past the broker`;
    if (feature !== OPT_IN_FEATURE && !profile.requiredSystemFeatures.includes(feature))
      return `it requires the system feature '${feature}', which the profile '${profile.name}' does not allow`;
  }
  return undefined;
}

function refuseBuilder(derivation: Derivation, profile: Profile, storeDir: string): string | undefined {
  const { system, builder } = derivation;
  if (profile.systems !== "any" && !profile.systems.includes(system))
    return `its system '${system}' is not among those of the profile '${profile.name}'`;
  if (builder.startsWith("builtin:") || builder === SANDBOX_SHELL) return undefined;
  const inStore =
    builder.startsWith(`${storeDir}/`) &&
    isStorePath(builder.split("/", depthOf(storeDir) + 1).join("/"), storeDir);
  return inStore ? undefined : `its builder '${builder.slice(0, 200)}' is not in the store`;
}

function depthOf(storeDir: string): number {
  return storeDir.split("/").length;
}

function refuseOutputs(derivation: Derivation, profile: Profile): string | undefined {
  for (const [name, output] of derivation.outputs) {
    const kind = outputKind(output);
    if (kind === "impure") return `its output '${name}' is impure`;
    if (kind === "floating" && !profile.contentAddressed)
      return `its output '${name}' is content-addressed, which the profile '${profile.name}' does not allow`;
    if (output.hashAlgorithm === "") continue;
    const { algorithm, method } = parseOutputHashAlgorithm(output.hashAlgorithm);
    if (!STRONG_HASHES.has(algorithm))
      return `its output '${name}' is named by the weak or unusual hash ${algorithm}`;
    // A text output may be a derivation, which would be built unjudged.
    if (method === "git" || method === "text")
      return `its output '${name}' is hashed by a method that is not allowed here`;
  }
  // Nix goes by the outputs. One that goes by the attribute must find it judged as well.
  if (!profile.contentAddressed && derivationAttributes(derivation).flag("__contentAddressed"))
    return `it sets __contentAddressed, which the profile '${profile.name}' does not allow`;
  return undefined;
}
