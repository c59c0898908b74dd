/**
 * How the service's memory for clients (`runtime.memory`) is divided, and what the largest single need is. Requests of
 * different size wait in different lines, so that short ones never wait for long ones to arrive, and what parses a
 * derivation waits for nothing but other parsers, so that it always comes to an end.
 */
import type { Limits } from "./limits.ts";

const KiB = 1024;
const MiB = 1024 * KiB;

/** What one byte of a request takes once it is decoded and worked with; measured by `test/attack/memory.test.ts`. */
export const REQUEST_COST = 4;
/** What one byte of a derivation's text takes while it is read and parsed. */
export const PARSING_COST = 6;
/** So much of a request, or of a derivation's text, is not counted: connections are limited, and so is this. Bytes. */
export const UNCOUNTED = 64 * KiB;
/** What a path takes that contents are scanned for. Bytes. */
export const SCANNED_PATH_COST = 250;
/** So many such paths are not counted. */
export const UNCOUNTED_PATHS = 1000;
/** Longer requests wait in another line. Bytes. */
export const MEDIUM_REQUEST = 1 * MiB;

export const DEFAULT_MEMORY = 256 * MiB;

/** Of the whole: what the names in one sandbox's build requests may take while they are built, which takes hours. */
const NAMES_SHARE = 1 / 8;

/** The lines, and their shares of the whole. */
const shares = { medium: 1 / 8, long: 4 / 8, parsing: 3 / 8 } as const;

export type MemoryLine = keyof typeof shares;
export const memoryLines = Object.keys(shares) as readonly MemoryLine[];

/** How many bytes each line has. */
export function divideMemory(memory: number): Readonly<Record<MemoryLine, number>> {
  return {
    medium: Math.floor(memory * shares.medium),
    long: Math.floor(memory * shares.long),
    parsing: Math.floor(memory * shares.parsing),
  };
}

/** The most that one request may hold, with a text that comes as its body. Bytes of the wire. */
export function longestRequest({
  requestBytes,
  textBytes,
}: Pick<Limits, "requestBytes" | "textBytes">): number {
  return Math.max(requestBytes, textBytes);
}

/** What the names in one sandbox's build requests may take while they are built, in bytes. */
export function memoryForNames(memory: number): number {
  return Math.floor(memory * NAMES_SHARE);
}

/** With less memory some request that the limits allow could never be served. */
export function leastMemory(limits: Pick<Limits, "requestBytes" | "textBytes">): number {
  return Math.ceil(
    Math.max(
      (MEDIUM_REQUEST * REQUEST_COST) / shares.medium,
      (longestRequest(limits) * REQUEST_COST) / shares.long,
      (limits.textBytes * PARSING_COST) / shares.parsing,
    ),
  );
}
