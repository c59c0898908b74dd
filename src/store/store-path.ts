/**
 * Store paths: `<store folder>/<hash part>-<name>`.
 * Rules: `src/libstore/path.cc` in the Nix tree (2.3: `checkStoreName` in `store-api.cc`).
 */

import { quote } from "./quote.ts";

/** The full path as a string, for example `/nix/store/<32 characters>-<name>`. */
export type StorePath = string;

/** A text that is not a store path, or a name that a store path cannot have. */
export class StorePathError extends Error {
  override readonly name = "StorePathError";
}

/** Characters in the hash part: 160 bits of base 32. */
export const HASH_PART_LENGTH = 32;

/** The longest name that Nix allows: 255 bytes for a file name, less hash part, dash, and suffixes such as `.lock`. */
export const MAX_NAME_LENGTH = 211;

// As in 2.26 and later (src/libstore/path.cc): 2.3 refuses any leading dot, 2.8 none; stores hold paths of all of them.
const namePattern = /^(?!\.{1,2}(?:-|$))[0-9a-zA-Z+\-._?=]+$/;
const hashPartPattern = /^[0-9a-df-np-sv-z]{32}$/;

/** Whether the text can be the name part of a store path. */
export function isStoreName(name: string): boolean {
  return name.length <= MAX_NAME_LENGTH && namePattern.test(name);
}

/** Whether the text is the 32-character hash part of a store path. */
export function isHashPart(text: string): boolean {
  return hashPartPattern.test(text);
}

/** Whether the text is a store path in that store folder, and nothing below it. */
export function isStorePath(text: string, storeDir: string): boolean {
  return (
    text.charCodeAt(storeDir.length) === 0x2f &&
    text.startsWith(storeDir) &&
    isStoreBase(text.slice(storeDir.length + 1))
  );
}

/** Whether the text is `<hash part>-<name>`: the file name of a store path. */
export function isStoreBase(base: string): boolean {
  return (
    base.charCodeAt(HASH_PART_LENGTH) === 0x2d &&
    isHashPart(base.slice(0, HASH_PART_LENGTH)) &&
    isStoreName(base.slice(HASH_PART_LENGTH + 1))
  );
}

/**
 * The text, as the store path that it is.
 * @throws StorePathError that says which rule it breaks.
 */
export function parseStorePath(text: string, storeDir: string): StorePath {
  if (isStorePath(text, storeDir)) return text;
  throw new StorePathError(`${quote(text)} is not a store path: ${reason(text, storeDir)}.`);
}

/**
 * The name, if a store path can have it.
 * @throws StorePathError that says which rule it breaks.
 */
export function parseStoreName(name: string): string {
  if (isStoreName(name)) return name;
  throw new StorePathError(`${quote(name)} cannot name a store path: ${nameReason(name)}.`);
}

/** `<hash part>-<name>` of a store path. */
export function storePathBase(path: StorePath): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The 32 characters of the hash part of a store path. */
export function storePathHash(path: StorePath): string {
  const start = path.lastIndexOf("/") + 1;
  return path.slice(start, start + HASH_PART_LENGTH);
}

/** The name part of a store path. */
export function storePathName(path: StorePath): string {
  return path.slice(path.lastIndexOf("/") + 1 + HASH_PART_LENGTH + 1);
}

/** Whether the store path is that of a derivation: Nix decides by the name alone. */
export function isDerivationPath(path: StorePath): boolean {
  return path.endsWith(".drv");
}

function reason(text: string, storeDir: string): string {
  if (!text.startsWith(`${storeDir}/`)) return `it is not in ${storeDir}`;
  const base = text.slice(storeDir.length + 1);
  if (base.includes("/")) return `it names something below a store path`;
  if (!isHashPart(base.slice(0, HASH_PART_LENGTH)))
    return `it must start with ${HASH_PART_LENGTH} characters of Nix's base 32`;
  if (base[HASH_PART_LENGTH] !== "-") return `a dash must follow the hash part`;
  return nameReason(base.slice(HASH_PART_LENGTH + 1));
}

function nameReason(name: string): string {
  if (name === "") return "the name is empty";
  if (name.length > MAX_NAME_LENGTH)
    return `the name has ${name.length} characters, more than ${MAX_NAME_LENGTH}`;
  if (/^\.{1,2}(?:-|$)/.test(name)) return "the name is one or two dots, or starts with them and a dash";
  return "the name has a character other than letters, digits and + - . _ ? =";
}
