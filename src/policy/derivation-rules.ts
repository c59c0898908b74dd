/**
 * Which derivations a sandbox may add and run (docs/recursive-nix.md), judged on the parsed text. What a
 * derivation reads is judged when it is added and again at the build; what it does when it runs is judged at
 * the build only, and only for derivations that may run (`sandbox/forward/approve.ts`): until then it is a
 * text like any other.
 */

import {
  ContentAddressError,
  contentAddressPath,
  parseOutputHashAlgorithm,
} from "../store/content-address.ts";
import { type Derivation, DerivationError, fixedOutputAddress, outputKind } from "../store/derivation.ts";
import { type StorePath, StorePathError } from "../store/store-path.ts";
import { listsName } from "./name-list.ts";
import { forbiddenSystemFeatures, type Profile } from "./profile.ts";

/** The feature with which a derivation asks the broker for its own sandbox. */
export const OPT_IN_FEATURE = "nix-broker";

/** Attributes that open the sandbox, or make a result depend on the host. */
const OPENING_FLAGS = ["__noChroot", "__impure"] as const;
const OPENING_TEXTS = [
  "__impureHostDeps",
  "__propagatedImpureHostDeps",
  "sandboxProfile",
  "__sandboxProfile",
] as const;

/** Variables that usually hold a secret are not covered by a `*`: the builder that gets one can send it anywhere. */
const SECRET = /TOKEN|SECRET|PASSWORD|PRIVATE|CREDENTIAL|NETRC|AUTH|API_?KEY|ACCESS_?KEY/i;

const STRONG_HASHES = new Set(["sha256", "sha512"]);
const WEAK_HASHES = new Set(["md5", "sha1"]);

/**
 * What a derivation reads. Judged when it is added and again at the build. Upstream never compares these:
 * whatever the text names but the references do not would be read unnoticed.
 * @param references what the store has, or will have, as the references of the .drv file
 * @returns why it is refused, or undefined.
 */
export function refuseInputs(derivation: Derivation, references: Iterable<StorePath>): string | undefined {
  const declared = new Set(references);
  const named = new Set([...derivation.inputSrcs, ...derivation.inputDrvs.keys()]);
  for (const path of named)
    if (!declared.has(path)) return `its input '${path}' is not among the references it was added with`;
  for (const path of declared)
    if (!named.has(path)) return `its reference '${path}' is not one of its inputs`;
  return undefined;
}

/**
 * Whether its fixed output is where its hash says. Daemons since Nix 2.4 work out that path and do not look at the one that the
 * text names: if that one were held, the derivation would seem to need no build, and be built unjudged. So this is asked
 * before anything else is. (Of input-addressed outputs they check the paths when a derivation is added.)
 * @param name of the derivation, with `.drv`
 * @returns why it is refused, or undefined.
 */
export function refuseFixedPath(derivation: Derivation, storeDir: string, name: string): string | undefined {
  if (!isFixedOutput(derivation)) return undefined;
  const { outputs } = derivation;
  const out = outputs.get("out");
  const address = out && fixedOutputAddress(out);
  if (!address || outputs.size > 1)
    return "it has a fixed output, which must then be its only one, and be named 'out'";
  try {
    const path = contentAddressPath(storeDir, name.slice(0, -".drv".length), address, []);
    return path === out.path ? undefined : `its output 'out' is not at the path that follows from its hash`;
  } catch (error) {
    if (error instanceof ContentAddressError || error instanceof StorePathError) return error.message;
    throw error;
  }
}

/**
 * What a derivation does when it runs: judged for derivations that a build request may run, and for no
 * others. The builder is not judged: /bin/sh, which is always there, may start anything in the sandbox.
 * @returns why it is refused, or undefined.
 */
export function refuseToRun(derivation: Derivation, profile: Profile): string | undefined {
  try {
    return (
      refuseSystem(derivation, profile) ??
      refuseUnfixedFetch(derivation) ??
      refuseAttributes(derivation, profile) ??
      refuseOutputs(derivation, profile)
    );
  } catch (error) {
    if (error instanceof DerivationError || error instanceof ContentAddressError) return error.message;
    throw error;
  }
}

/** Judges a fixed-output derivation whose output is not there. @returns why it is refused, or undefined. */
export function refuseFixedOutput(derivation: Derivation, profile: Profile): string | undefined {
  const policy = profile.fixedOutputs;
  if (policy === "allow" || !isFixedOutput(derivation)) return undefined;
  if (policy === "deny") return `the profile '${profile.name}' allows no fixed-output derivations`;
  if (policy === "known")
    return `the profile '${profile.name}' allows fixed-output derivations only if the output is already in the view; nix-broker itself fetches from URLs that are listed (fixed_outputs, or for nix-broker jail --allow-url)`;
  return `the profile '${profile.name}' lets no derivation use the network (fixed_outputs)`;
}

/** Judges the hash of a fixed output that is to be fetched. @returns why it is refused, or undefined. */
export function refuseHash(derivation: Derivation, profile: Profile): string | undefined {
  try {
    return refuseOutputs(derivation, profile);
  } catch (error) {
    if (error instanceof DerivationError || error instanceof ContentAddressError) return error.message;
    throw error;
  }
}

/** Whether the derivation fetches: its output is fixed, and its builder has network access. */
export function isFixedOutput(derivation: Derivation): boolean {
  return [...derivation.outputs.values()].some((output) => outputKind(output) === "fixed");
}

/** Whether the derivation asks the broker for its own sandbox. @throws DerivationError */
export function optsIn(derivation: Derivation): boolean {
  return derivation.attributes.list("requiredSystemFeatures").includes(OPT_IN_FEATURE);
}

function refuseAttributes(derivation: Derivation, profile: Profile): string | undefined {
  const { attributes } = derivation;
  for (const name of OPENING_FLAGS) if (attributes.flag(name)) return `it sets ${name}`;
  for (const name of OPENING_TEXTS)
    if (attributes.has(name) && attributes.text(name) !== "") return `it sets ${name}`;
  for (const name of attributes.list("impureEnvVars"))
    if (!takesVariable(profile, name))
      return `it asks for the daemon's variable '${name}' (impureEnvVars), which the profile '${profile.name}' does not ${SECRET.test(name) ? "name in full, as it must for variables that may hold a secret" : "list"} (impure_env_vars)`;
  for (const feature of attributes.list("requiredSystemFeatures")) {
    if ((forbiddenSystemFeatures as readonly string[]).includes(feature))
      return `it requires the system feature '${feature}', which bypasses the broker`;
    if (feature !== OPT_IN_FEATURE && !listsName(profile.requiredSystemFeatures, feature))
      return `it requires the system feature '${feature}', which the profile '${profile.name}' does not allow`;
  }
  return undefined;
}

function takesVariable({ impureEnvVars }: Profile, name: string): boolean {
  return SECRET.test(name) ? impureEnvVars.includes(name) : listsName(impureEnvVars, name);
}

/**
 * Without a fixed output the daemon's own fetcher has no network, but the daemon puts its netrc file beside it all the same, which
 * a `file:` URL copies into the output (Nix 2.3 and 2.8). What 2.3 takes for a fixed output must be the only one, and named `out`.
 */
function refuseUnfixedFetch({ builder, outputs }: Derivation): string | undefined {
  if (!builder.startsWith("builtin:fetch")) return undefined;
  const out = outputs.get("out");
  if (out && outputs.size === 1 && outputKind(out) === "fixed") return undefined;
  return `its builder ${builder} needs one output, 'out', whose hash is fixed`;
}

function refuseSystem({ system }: Derivation, profile: Profile): string | undefined {
  return profile.systems === "any" || profile.systems.includes(system)
    ? undefined
    : `its system '${system}' is not among those of the profile '${profile.name}'`;
}

function refuseOutputs(derivation: Derivation, profile: Profile): string | undefined {
  for (const [name, output] of derivation.outputs) {
    const kind = outputKind(output);
    if (kind === "impure") return `its output '${name}' is impure`;
    if (kind === "floating" && !profile.contentAddressed)
      return `its output '${name}' is content-addressed, which the profile '${profile.name}' does not allow`;
    if (output.hashAlgorithm === "") continue;
    const { algorithm, method } = parseOutputHashAlgorithm(output.hashAlgorithm);
    if (WEAK_HASHES.has(algorithm) && !profile.weakHashes)
      return `its output '${name}' uses the weak hash ${algorithm}, which the profile '${profile.name}' does not allow (weak_hashes)`;
    if (!WEAK_HASHES.has(algorithm) && !STRONG_HASHES.has(algorithm))
      return `its output '${name}' uses the hash ${algorithm}, which is not allowed here`;
    if (method === "text")
      return `its output '${name}' is a text, which could be a derivation that would be built unjudged (dynamic derivations are not supported)`;
    if (method === "git") return `its output '${name}' is hashed by a method that is not allowed here`;
  }
  // Nix decides by the outputs. A version that decides by the attribute must find it judged as well.
  if (!profile.contentAddressed && derivation.attributes.flag("__contentAddressed"))
    return `it sets __contentAddressed, which the profile '${profile.name}' does not allow`;
  return undefined;
}
