/**
 * Content addresses, and the store paths that follow from them.
 * Formats: `src/libstore/content-address.cc` and `store-dir-config.cc` in the Nix tree, and the manual's page
 * `protocols/store-path.md`.
 */

import { hash as hashAtOnce } from "node:crypto";
import { encodeBase32 } from "./base32.ts";
import { type Hash, type HashAlgorithm, HashError, isHashAlgorithm, parseHash, printHash } from "./hash.ts";
import { quote } from "./quote.ts";
import { parseStoreName, type StorePath } from "./store-path.ts";

/**
 * What of a store object is hashed. `text`: the bytes of a file whose references count (derivations, `toFile`);
 * `flat`: the bytes of a file; `nar`: the NAR; `git`: the git object (experimental, 2.20 and later).
 */
export type ContentAddressMethod = "text" | "flat" | "nar" | "git";

/** How a store object is to be hashed. */
export interface HashedBy {
  readonly method: ContentAddressMethod;
  readonly algorithm: HashAlgorithm;
}

/** A content address: how a store object was hashed, and the result. */
export interface ContentAddress {
  readonly method: ContentAddressMethod;
  readonly hash: Hash;
}

/** A text that is not a content address, or a content address that no store path can have. */
export class ContentAddressError extends Error {
  override readonly name = "ContentAddressError";
}

/** The prefix of each method as derivation outputs carry it. */
const outputPrefixes: Readonly<Record<ContentAddressMethod, string>> = {
  text: "text:",
  flat: "",
  nar: "r:",
  git: "git:",
};

/** The prefix of each method as content addresses carry it. */
const prefixes: Readonly<Record<ContentAddressMethod, string>> = {
  text: "text:",
  flat: "fixed:",
  nar: "fixed:r:",
  git: "fixed:git:",
};

const withAlgorithm = /^(text:|fixed:r:|fixed:git:|fixed:)([a-z0-9]+)$/;
const outputWithAlgorithm = /^(text:|r:|git:|)([a-z0-9]+)$/;

/**
 * Reads the form that AddToStore carries from protocol 1.25 on: `text:sha256`, `fixed:r:sha256`, `fixed:sha1` …
 * @throws ContentAddressError
 */
export function parseContentAddressMethod(text: string): HashedBy {
  return parseHashedBy(text, withAlgorithm, prefixes, "content-address method");
}

/** Writes the form that AddToStore carries from protocol 1.25 on. */
export function printContentAddressMethod(by: HashedBy): string {
  return prefixes[by.method] + by.algorithm;
}

/**
 * Reads the form that the outputs of a derivation carry: `sha256`, `r:sha256`, `git:sha1`, `text:sha256`.
 * @throws ContentAddressError
 */
export function parseOutputHashAlgorithm(text: string): HashedBy {
  return parseHashedBy(text, outputWithAlgorithm, outputPrefixes, "hash algorithm of an output");
}

/**
 * Reads a content address such as `fixed:r:sha256:<digest>`; the digest may be base 16, 32 or 64.
 * @throws ContentAddressError
 */
export function parseContentAddress(text: string): ContentAddress {
  const colon = text.lastIndexOf(":");
  const { method, algorithm } = parseHashedBy(
    text.slice(0, Math.max(colon, 0)),
    withAlgorithm,
    prefixes,
    "content address",
    text,
  );
  try {
    // The algorithm is said again so that an SRI text, which has no place here, is refused.
    return { method, hash: parseHash(`${algorithm}:${text.slice(colon + 1)}`, algorithm) };
  } catch (error) {
    if (!(error instanceof HashError)) throw error;
    throw new ContentAddressError(`${quote(text)} is not a content address: ${error.message}`, {
      cause: error,
    });
  }
}

/** Writes a content address in Nix's form: the digest in base 32. */
export function printContentAddress(address: ContentAddress): string {
  return prefixes[address.method] + printHash(address.hash, "base32", true);
}

/**
 * The store path of an object with that content address.
 * @param name the name part of the path.
 * @param references other store paths that the object refers to, in any order.
 * @param selfReference whether it refers to itself; the digest is then that of the contents modulo self-references.
 * @throws StorePathError if the name is not allowed.
 * @throws ContentAddressError for what Nix has no path for: text other than sha256 or that refers to itself, git
 * other than sha1 or sha256, references of anything but text and `nar` with sha256.
 */
export function contentAddressPath(
  storeDir: string,
  name: string,
  address: ContentAddress,
  references: Iterable<StorePath>,
  selfReference = false,
): StorePath {
  const { method, hash } = address;
  const others = sorted(references);
  if (method === "text") {
    if (hash.algorithm !== "sha256")
      throw new ContentAddressError(`A text is addressed by sha256 only, not by ${hash.algorithm}.`);
    if (selfReference) throw new ContentAddressError("A text cannot refer to itself.");
    return makeStorePath(storeDir, ["text", ...others].join(":"), hash, name);
  }
  if (method === "git" && hash.algorithm !== "sha1" && hash.algorithm !== "sha256")
    throw new ContentAddressError(`A git object is addressed by sha1 or sha256, not by ${hash.algorithm}.`);
  if (method === "nar" && hash.algorithm === "sha256") {
    const type = ["source", ...others, ...(selfReference ? ["self"] : [])].join(":");
    return makeStorePath(storeDir, type, hash, name);
  }
  if (others.length > 0 || selfReference)
    throw new ContentAddressError(
      `An object addressed by ${printContentAddressMethod({ method, algorithm: hash.algorithm })} cannot have references; only text:sha256 and fixed:r:sha256 can.`,
    );
  const outer = sha256(`fixed:out:${outputPrefixes[method]}${printHash(hash, "base16", true)}:`);
  return makeStorePath(storeDir, "output:out", { algorithm: "sha256", digest: outer }, name);
}

/**
 * The path of an output of a derivation that has no input derivations.
 * @param hash of the derivation's text in which no output has a path yet
 */
export function inputAddressedPath(
  storeDir: string,
  outputPathName: string,
  output: string,
  hash: Hash,
): StorePath {
  return makeStorePath(storeDir, `output:${output}`, hash, outputPathName);
}

function makeStorePath(storeDir: string, type: string, hash: Hash, name: string): StorePath {
  const fingerprint = `${type}:${printHash(hash, "base16", true)}:${storeDir}:${parseStoreName(name)}`;
  return `${storeDir}/${encodeBase32(fold(sha256(fingerprint), 20))}-${name}`;
}

/** Nix's way of shortening a digest: the bytes beyond the wanted length are XORed over the first ones. */
function fold(digest: Buffer, length: number): Buffer {
  const folded = Buffer.alloc(length);
  for (let i = 0; i < digest.length; i++) folded[i % length]! ^= digest[i]!;
  return folded;
}

function sha256(text: string): Buffer {
  return hashAtOnce("sha256", Buffer.from(text, "latin1"), "buffer");
}

/** All are in the same folder, so they have the order of their file names. */
function sorted(paths: Iterable<StorePath>): StorePath[] {
  return [...new Set(paths)].sort();
}

function parseHashedBy(
  text: string,
  pattern: RegExp,
  prefixOf: Readonly<Record<ContentAddressMethod, string>>,
  what: string,
  whole = text,
): HashedBy {
  const [, prefix, algorithm] = pattern.exec(text) ?? [];
  if (prefix !== undefined && algorithm !== undefined && isHashAlgorithm(algorithm))
    for (const method of ["text", "flat", "nar", "git"] as const)
      if (prefixOf[method] === prefix) return { method, algorithm };
  throw new ContentAddressError(`${quote(whole)} is not a ${what} that Nix knows.`);
}
