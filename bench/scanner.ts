/** The speed of the reference scanner on easy input and on input made to be hard. */

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { BASE32_ALPHABET, encodeBase32 } from "../src/store/base32.ts";
import { ReferenceScanner } from "../src/store/reference-scanner.ts";

/** One measurement: gigabytes (10^9 bytes) a second, the median of the rounds. */
export interface ScannerMeasure {
  readonly input: string;
  readonly wanted: number;
  readonly gigabytesPerSecond: number;
}

const CHUNK = 64 * 1024;
const ROUNDS = 11;
const SIZE = 32 * 1024 * 1024;

/** Measures every input, with few and with many hash parts to look for. */
export function measureScanner(): ScannerMeasure[] {
  const hashParts = Array.from({ length: 100_000 }, () => encodeBase32(randomBytes(20)));
  const inputs: [string, Buffer][] = [
    ["English and code", repeated(readFileSync(new URL("../LICENSE", import.meta.url)))],
    ["a program", repeated(readFileSync(process.execPath).subarray(0, SIZE))],
    ["random bytes", randomBytes(SIZE)],
    ["zeros", Buffer.alloc(SIZE)],
    ["base 16", Buffer.from(randomBytes(SIZE / 2).toString("hex"), "latin1")],
    ["random base 32", randomBytes(SIZE).map((byte) => BASE32_ALPHABET.charCodeAt(byte & 31)) as Buffer],
    ["one digit", Buffer.alloc(SIZE, "a")],
    ["runs of 31 digits", repeated(Buffer.from(`${"a".repeat(31)}-`))],
    ["runs of 32 digits", repeated(Buffer.from(`${"a".repeat(32)}-`))],
    ["almost what is wanted", repeated(Buffer.from(almost(hashParts.slice(0, 100))))],
  ];
  return [100, 100_000].flatMap((wanted) =>
    inputs.map(([input, bytes]) => ({
      input,
      wanted,
      gigabytesPerSecond: measure(bytes, hashParts.slice(0, wanted)),
    })),
  );
}

/** Made to have every part of it looked at, in vain: hash parts that each lack their last digit. */
function almost(hashParts: readonly string[]): string {
  return hashParts.map((hashPart) => hashPart.slice(0, -1)).join("");
}

function measure(bytes: Buffer, hashParts: string[]): number {
  const speeds: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const scanner = new ReferenceScanner(hashParts);
    const start = performance.now();
    for (let at = 0; at < bytes.length; at += CHUNK) scanner.push(bytes.subarray(at, at + CHUNK));
    speeds.push(bytes.length / (performance.now() - start) / 1e6);
  }
  return speeds.sort((a, b) => a - b)[ROUNDS >> 1]!;
}

function repeated(bytes: Buffer): Buffer {
  return Buffer.alloc(SIZE, bytes);
}

if (import.meta.main) {
  for (const { input, wanted, gigabytesPerSecond } of measureScanner())
    console.log(
      `${input.padEnd(20)} ${String(wanted).padStart(7)} wanted  ${gigabytesPerSecond.toFixed(2).padStart(6)} GB/s`,
    );
}
