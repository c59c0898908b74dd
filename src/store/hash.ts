/**
 * Hashes and their texts. Formats: `src/libutil/hash.cc` in the Nix tree; blake3 is known to Nix 2.30 and later.
 */

import { createHash, hash as hashAtOnce } from "node:crypto";
import { base32Length, decodeBase32, encodeBase32 } from "./base32.ts";
import { quote } from "./quote.ts";
import type { Slices } from "./slices.ts";

/** The hash algorithms that some version of Nix knows. */
export type HashAlgorithm = "md5" | "sha1" | "sha256" | "sha512" | "blake3";

/** How a digest is written. `sri` is `<algorithm>-<base64>`, whatever is asked of the prefix. */
export type HashFormat = "base16" | "base32" | "base64" | "sri";

/** A digest together with its algorithm. */
export interface Hash {
  readonly algorithm: HashAlgorithm;
  readonly digest: Buffer;
}

/** A text that is not a hash. */
export class HashError extends Error {
  override readonly name = "HashError";
}

const digestLengths: ReadonlyMap<string, number> = new Map<HashAlgorithm, number>([
  ["md5", 16],
  ["sha1", 20],
  ["sha256", 32],
  ["sha512", 64],
  ["blake3", 32],
]);

/** Bytes that are hashed between two yields. */
const HASHED_A_SLICE = 1024 * 1024;

/** The SHA-256 digest. */
export function* sha256(bytes: Buffer): Slices<Buffer> {
  if (bytes.length <= HASHED_A_SLICE) return hashAtOnce("sha256", bytes, "buffer");
  const hash = createHash("sha256");
  for (let start = 0; start < bytes.length; start += HASHED_A_SLICE) {
    if (start > 0) yield;
    hash.update(bytes.subarray(start, start + HASHED_A_SLICE));
  }
  return hash.digest();
}

/** Whether this is the name of an algorithm, as Nix writes it. */
export function isHashAlgorithm(text: string): text is HashAlgorithm {
  return digestLengths.has(text);
}

/** How many bytes a digest has. */
export function digestLength(algorithm: HashAlgorithm): number {
  return digestLengths.get(algorithm)!;
}

/**
 * Reads a hash: `<algorithm>:<digest>`, `<algorithm>-<base64>` (SRI), or, if the algorithm is given, the digest
 * alone. A digest may be base 16, base 32 or base 64; its length tells which.
 * @throws HashError if the algorithm is unknown, missing, or not the given one, and if the digest has the wrong
 * length or is not in canonical form.
 */
export function parseHash(text: string, algorithm?: HashAlgorithm): Hash {
  const colon = text.indexOf(":");
  const separator = colon >= 0 ? colon : text.indexOf("-");
  if (separator < 0) {
    if (algorithm === undefined) throw new HashError(`The hash ${quote(text)} does not say its algorithm.`);
    return { algorithm, digest: decodeDigest(text, algorithm) };
  }
  const named = text.slice(0, separator);
  if (!isHashAlgorithm(named))
    throw new HashError(
      `The hash ${quote(text)} has the unknown algorithm ${quote(named)}; known are ${[...digestLengths.keys()].join(", ")}.`,
    );
  if (algorithm !== undefined && named !== algorithm)
    throw new HashError(`The hash ${quote(text)} must be of the algorithm ${algorithm}.`);
  const rest = text.slice(separator + 1);
  return { algorithm: named, digest: colon >= 0 ? decodeDigest(rest, named) : decodeBase64(rest, named) };
}

/** Writes a hash. The prefix is `<algorithm>:`; `sri` always carries its own. */
export function printHash(hash: Hash, format: HashFormat, withPrefix: boolean): string {
  if (format === "sri") return `${hash.algorithm}-${hash.digest.toString("base64")}`;
  const prefix = withPrefix ? `${hash.algorithm}:` : "";
  if (format === "base32") return prefix + encodeBase32(hash.digest);
  return prefix + hash.digest.toString(format === "base16" ? "hex" : "base64");
}

function decodeDigest(text: string, algorithm: HashAlgorithm): Buffer {
  const size = digestLength(algorithm);
  if (text.length === size * 2) return decodeBase16(text, algorithm);
  if (text.length === base32Length(size)) {
    try {
      return decodeBase32(text);
    } catch (error) {
      throw new HashError(`The ${algorithm} digest ${quote(text)} cannot be read.`, {
        cause: error,
      });
    }
  }
  if (text.length === base64Length(size)) return decodeBase64(text, algorithm);
  throw new HashError(
    `The ${algorithm} digest ${quote(text)} has ${text.length} characters; it must have ${size * 2} (base 16), ${base32Length(size)} (base 32) or ${base64Length(size)} (base 64).`,
  );
}

function decodeBase16(text: string, algorithm: HashAlgorithm): Buffer {
  // Buffer.from stops silently at the first foreign character.
  if (!/^[0-9a-fA-F]*$/.test(text))
    throw new HashError(`The ${algorithm} digest ${quote(text)} is not base 16.`);
  return Buffer.from(text, "hex");
}

function decodeBase64(text: string, algorithm: HashAlgorithm): Buffer {
  const digest = Buffer.from(text, "base64");
  // Buffer.from skips what it does not know, so it is checked by converting back.
  if (digest.length !== digestLength(algorithm) || digest.toString("base64") !== text)
    throw new HashError(
      `The ${algorithm} digest ${quote(text)} is not ${digestLength(algorithm)} bytes of base 64 in canonical form.`,
    );
  return digest;
}

function base64Length(bytes: number): number {
  return Math.ceil(bytes / 3) * 4;
}
