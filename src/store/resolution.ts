/**
 * What a derivation resolves to once its content-addressed inputs are built: a derivation without input derivations, whose
 * sources are their outputs (`tryResolve` in src/libstore/derivation/resolution.cc in the Nix tree; `derivations.cc` up to 2.34).
 */
import { createHash } from "node:crypto";
import { encodeBase32 } from "./base32.ts";
import { contentAddressPath, inputAddressedPath } from "./content-address.ts";
import { outputPathName } from "./derivation.ts";
import type { Hash } from "./hash.ts";
import { type StorePath, storePathBase, storePathHash, storePathName } from "./store-path.ts";

/** The outputs that a derivation wants of its input derivations, by name. */
export type BuiltInputs = ReadonlyMap<StorePath, ReadonlyMap<string, StorePath>>;

export interface Resolved {
  /** Of the derivation that it resolves to, where all its outputs are content-addressed. */
  readonly path: StorePath;
  /** Where an output is whose path follows from the inputs alone. */
  deferredOutput(name: string): StorePath;
}

/** What stands in a derivation for the path of an output that is not known yet (`DownstreamPlaceholder`). */
export function downstreamPlaceholder(derivation: StorePath, output: string): string {
  const name = outputPathName(nameOf(derivation), output);
  return `/${encodeBase32(hashOf(`nix-upstream-output:${storePathHash(derivation)}:${name}`).digest)}`;
}

/**
 * @param path of the derivation
 * @param text of it, in canonical form
 * @param sources its input sources
 */
export function resolve(
  path: StorePath,
  text: string,
  sources: readonly StorePath[],
  inputs: BuiltInputs,
): Resolved {
  const storeDir = path.slice(0, path.lastIndexOf("/"));
  const rewrites = new Map<string, StorePath>();
  const all = new Set(sources);
  for (const [input, outputs] of inputs)
    for (const [name, output] of outputs) {
      rewrites.set(downstreamPlaceholder(input, name), output);
      all.add(output);
    }
  const references = [...all].sort((a, b) => (storePathBase(a) < storePathBase(b) ? -1 : 1));
  const { outputs, rest } = withoutInputs(text);
  const list = references.map((reference) => `"${reference}"`).join();
  const resolved = `Derive(${outputs},[],[${list}]${rest.replace(PLACEHOLDER, (found) => rewrites.get(found) ?? found)}`;
  const hash = hashOf(resolved);
  return {
    path: contentAddressPath(storeDir, storePathName(path), { method: "text", hash }, references),
    deferredOutput: (name) => inputAddressedPath(storeDir, outputPathName(nameOf(path), name), name, hash),
  };
}

function hashOf(text: string): Hash {
  return { algorithm: "sha256", digest: createHash("sha256").update(text, "latin1").digest() };
}

const PLACEHOLDER = /\/[0-9a-df-np-sv-z]{52}/g;

function nameOf(derivation: StorePath): string {
  return storePathName(derivation).slice(0, -".drv".length);
}

/** The list of outputs, and what follows the two lists of inputs. */
function withoutInputs(text: string): { outputs: string; rest: string } {
  const outputsStart = "Derive(".length;
  const outputsEnd = endOfList(text, outputsStart);
  const derivationsEnd = endOfList(text, outputsEnd + 1);
  const sourcesEnd = endOfList(text, derivationsEnd + 1);
  return { outputs: text.slice(outputsStart, outputsEnd), rest: text.slice(sourcesEnd) };
}

/** Where a list ends that begins there. Strings in these lists have neither escapes nor brackets. */
function endOfList(text: string, start: number): number {
  let depth = 0;
  for (let at = start; at < text.length; at++) {
    if (text[at] === "[") depth++;
    else if (text[at] === "]" && --depth === 0) return at + 1;
  }
  throw new Error("not a derivation in canonical form");
}
