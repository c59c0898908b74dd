/**
 * Which builds get their own sandbox, and which are refused and why (docs/recursive-nix.md, "What cannot be
 * an outer build"). Pure.
 */

import { type Derivation, outputKind } from "../store/derivation.ts";
import type { DerivationAttributes } from "../store/derivation-attributes.ts";

/** The system feature by which a derivation asks for a brokered daemon. */
export const SYSTEM_FEATURE = "nix-broker";

/** System features by which Nix itself gives a build a daemon. */
const OTHER_DAEMONS = ["recursive-nix", "builder-rpc-v0"];

/** The size of a sandbox's record, which names the outputs, is limited. nixpkgs has derivations with about 20. */
export const MAX_OUTPUTS = 100;

/** `reason` is one line for the people who wrote the derivation. */
export type OptIn =
  | { readonly kind: "none" }
  | { readonly kind: "ok" }
  | { readonly kind: "refused"; readonly reason: string };

/** What is known about the build besides its derivation. */
export interface BuildFacts {
  /** The build is sandboxed: it has a chroot. */
  readonly hasChroot: boolean;
  /** The build runs below a nix-daemon process. */
  readonly hasWorker: boolean;
}

function refused(reason: string): OptIn {
  return { kind: "refused", reason };
}

/** @throws DerivationError when the attributes of the derivation cannot be read. */
export function optIn(derivation: Derivation, facts: BuildFacts): OptIn {
  const { attributes } = derivation;
  const features = attributes.list("requiredSystemFeatures");
  if (!features.includes(SYSTEM_FEATURE)) return { kind: "none" };
  return refusedKind(derivation, features, attributes) ?? refusedPlace(facts) ?? { kind: "ok" };
}

/** What the derivation asks for that a brokered build cannot have. */
function refusedKind(
  derivation: Derivation,
  features: readonly string[],
  attributes: DerivationAttributes,
): OptIn | undefined {
  // First, because the others would tell the builder to drop what that feature needs.
  const other = OTHER_DAEMONS.find((feature) => features.includes(feature));
  if (other !== undefined)
    return refused(
      `this derivation requires the system features ${SYSTEM_FEATURE} and ${other}: each gives the build a Nix daemon of its own, and clients inside would talk to one of them without saying which; drop one of the two`,
    );
  const kinds = new Set([...derivation.outputs.values()].map(outputKind));
  if (kinds.has("fixed"))
    return refused(
      "this is a fixed-output derivation: its output cannot gain references to what is built inside; do the inner builds in an ordinary derivation",
    );
  if (kinds.has("floating") || attributes.flag("__contentAddressed"))
    return refused(
      "this derivation is content-addressed: its output cannot gain references to what is built inside; unset __contentAddressed",
    );
  if (kinds.has("impure") || attributes.flag("__impure"))
    return refused("this derivation is impure: its output cannot gain references to what is built inside");
  if (kinds.has("deferred"))
    return refused(
      "the output paths of this derivation are not known before it is built: its inputs are content-addressed and this Nix did not resolve them first",
    );
  if (derivation.outputs.size > MAX_OUTPUTS)
    return refused(
      `this derivation has ${derivation.outputs.size} outputs; a build with a sandbox may have ${MAX_OUTPUTS}`,
    );
  if (features.includes("uid-range"))
    return refused(
      "this derivation requires the system feature uid-range, with which the builder owns the root of its sandbox and nothing can be put there safely; drop uid-range",
    );
  return undefined;
}

function refusedPlace(facts: BuildFacts): OptIn | undefined {
  if (!facts.hasChroot)
    return refused(
      "this build is not sandboxed, so nothing can be hidden from it or shown to it; set sandbox = true in nix.conf and drop __noChroot",
    );
  if (!facts.hasWorker)
    return refused(
      "this build does not run below a nix-daemon process: root that uses the store directly would not see the references that are registered afterwards; set NIX_REMOTE=daemon",
    );
  return undefined;
}
