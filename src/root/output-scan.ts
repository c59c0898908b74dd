/**
 * Finds which paths an output mentions, in what its NAR would hold: contents of files, names, targets of symlinks. Reads
 * with one buffer, whatever the size.
 */
import { closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import { ReferenceScanner } from "../store/reference-scanner.ts";
import { type StorePath, storePathBase, storePathHash } from "../store/store-path.ts";

const CHUNK = 1 << 20;

/** Separates two strings of a NAR, so that no hash part is found across them. */
const SEPARATOR = Buffer.from([0]);
const SLASH = Buffer.from("/");

/**
 * @param storeReal where the store's files are
 * @param wanted the paths to look for
 * @returns those that `output` mentions, by the hash part of their names
 */
export function mentionedPaths(
  storeReal: string,
  output: StorePath,
  wanted: readonly StorePath[],
): StorePath[] {
  const byHash = new Map<string, StorePath[]>();
  for (const path of wanted) {
    const alike = byHash.get(storePathHash(path));
    if (alike) alike.push(path);
    else byHash.set(storePathHash(path), [path]);
  }
  const scanner = new ReferenceScanner(byHash.keys());
  scanTree(Buffer.from(`${storeReal}/${storePathBase(output)}`), scanner, Buffer.allocUnsafe(CHUNK));
  return [...scanner.found].flatMap((hash) => byHash.get(hash) ?? []);
}

function scanTree(path: Buffer, scanner: ReferenceScanner, buffer: Buffer): void {
  const stats = lstatSync(path);
  if (stats.isDirectory()) {
    for (const name of readdirSync(path, "buffer")) {
      scanString(name, scanner);
      scanTree(Buffer.concat([path, SLASH, name]), scanner, buffer);
    }
  } else if (stats.isSymbolicLink()) scanString(readlinkSync(path, "buffer"), scanner);
  else if (stats.isFile()) scanFile(path, scanner, buffer);
}

function scanFile(path: Buffer, scanner: ReferenceScanner, buffer: Buffer): void {
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    for (;;) {
      const length = readSync(descriptor, buffer, 0, buffer.length, null);
      if (length === 0) break;
      scanner.push(buffer.subarray(0, length));
    }
  } finally {
    closeSync(descriptor);
  }
  scanner.push(SEPARATOR);
}

function scanString(text: Buffer, scanner: ReferenceScanner): void {
  scanner.push(text);
  scanner.push(SEPARATOR);
}
