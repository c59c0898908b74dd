/**
 * Finds references in a stream of bytes, as Nix does: a reference is the 32-character hash part of a store path,
 * wherever it stands. Nix's own: `src/libstore/references.cc`.
 *
 * The bytes are untrusted, so the time must be linear whatever they are. Ordinary bytes are passed over by
 * stride: a window of 32 bytes is read from its end, and the first byte that is no base 32 digit moves the window
 * past it. Within long runs of digits, where that does not help, a rolling hash of the window is looked up. It has
 * random coefficients: a prefix table could be flooded by somebody who searches for paths with a common prefix.
 */

import { randomFillSync } from "node:crypto";
import { isBase32Digit } from "./base32.ts";
import { quote } from "./quote.ts";
import { HASH_PART_LENGTH, isHashPart, StorePathError } from "./store-path.ts";

/** 1 for bytes that are base 32 digits. */
const isDigit = Uint8Array.from({ length: 256 }, (_, byte) => (isBase32Digit(byte) ? 1 : 0));

/** Bits of the filter for each hash part that is looked for: about one window in 50 passes it by chance. */
const FILTER_BITS_EACH = 16;
/** Powers of two: 8 KiB to 8 MiB. */
const MIN_FILTER_BITS = 16;
const MAX_FILTER_BITS = 26;
/** Adding this many takes a few milliseconds. */
const AT_ONCE = 1000;

/** Scans one stream for a set of hash parts. */
export class ReferenceScanner {
  /** The hash parts that were seen. */
  readonly found: Set<string> = new Set();
  /** Hash parts not seen so far, by their rolling hash. */
  private readonly wanted = new Map<number, string[]>();
  private wantedCount = 0;
  /**
   * A filter in front of the map: the topmost bits of a rolling hash choose a word, the lowest two groups of five
   * choose bits in it, which are set if the hash is wanted.
   */
  private filter = new Int32Array();
  private filterShift = 0;
  private readonly factor: number;
  /** What a byte adds to the rolling hash when it enters the window. */
  private readonly entering = new Int32Array(256);
  /** What it has become when it leaves the window. */
  private readonly leaving = new Int32Array(256);
  /** The last 31 bytes of what was pushed, then room for the first 31 of what comes next. */
  private readonly seam = Buffer.alloc(2 * (HASH_PART_LENGTH - 1));
  private tailLength = 0;

  /**
   * @param hashParts what to look for.
   * @throws StorePathError if one is not a hash part.
   */
  constructor(hashParts: Iterable<string>) {
    randomFillSync(this.entering);
    this.factor = randomFillSync(new Int32Array(1))[0]! | 1;
    let power = 1;
    for (let i = 0; i < HASH_PART_LENGTH; i++) power = Math.imul(power, this.factor);
    for (let byte = 0; byte < 256; byte++) this.leaving[byte] = Math.imul(this.entering[byte]!, power);

    const wanted = new Set(hashParts);
    this.makeRoom(wanted.size);
    for (const hashPart of wanted) this.want(hashPart);
  }

  /**
   * Like the constructor, but with pauses: the hash parts of a whole store take half a second.
   * @param pause lets others run
   */
  static async gradually(
    hashParts: Iterable<string>,
    pause: () => Promise<unknown>,
  ): Promise<ReferenceScanner> {
    const scanner = new ReferenceScanner([]);
    const wanted = new Set(hashParts);
    scanner.makeRoom(wanted.size);
    let taken = 0;
    for (const hashPart of wanted) {
      scanner.want(hashPart);
      if (++taken % AT_ONCE === 0) await pause();
    }
    return scanner;
  }

  /**
   * Takes the next bytes. The worst input is scanned at about 0.1 GB/s, so on an event loop that serves
   * others a chunk should not be larger than a mebibyte.
   */
  push(chunk: Buffer): void {
    if (this.wantedCount === 0 || chunk.length === 0) return;
    const seam = this.seam;
    const head = Math.min(chunk.length, HASH_PART_LENGTH - 1);
    chunk.copy(seam, this.tailLength, 0, head);
    const seamLength = this.tailLength + head;
    this.scan(seam, seamLength);
    this.scan(chunk, chunk.length);
    if (chunk.length >= HASH_PART_LENGTH - 1) {
      this.tailLength = chunk.copy(seam, 0, chunk.length - (HASH_PART_LENGTH - 1));
    } else {
      this.tailLength = Math.min(seamLength, HASH_PART_LENGTH - 1);
      seam.copyWithin(0, seamLength - this.tailLength, seamLength);
    }
  }

  private makeRoom(count: number): void {
    this.wantedCount = count;
    const bits = Math.ceil(Math.log2(count * FILTER_BITS_EACH + 1));
    const words = Math.min(Math.max(bits, MIN_FILTER_BITS), MAX_FILTER_BITS) - 5;
    this.filter = new Int32Array(2 ** words);
    this.filterShift = 32 - words;
  }

  private want(hashPart: string): void {
    if (!isHashPart(hashPart))
      throw new StorePathError(`${quote(hashPart)} is not the hash part of a store path.`);
    const hash = this.hashOf(Buffer.from(hashPart, "latin1"), 0);
    this.filter[hash >>> this.filterShift]! |= filterBits(hash);
    const same = this.wanted.get(hash);
    if (same === undefined) this.wanted.set(hash, [hashPart]);
    else same.push(hashPart);
  }

  private hashOf(bytes: Buffer, start: number): number {
    let hash = 0;
    for (let at = start; at < start + HASH_PART_LENGTH; at++)
      hash = (Math.imul(hash, this.factor) + this.entering[bytes[at]!]!) | 0;
    return hash;
  }

  private scan(bytes: Buffer, length: number): void {
    let start = 0;
    while (start + HASH_PART_LENGTH <= length) {
      let at = start + HASH_PART_LENGTH - 1;
      while (at >= start && isDigit[bytes[at]!] === 1) at--;
      start = at < start ? this.scanRun(bytes, start, length) : at + 1;
    }
  }

  /** Looks up every window of a run of digits, of which the first window is known. Gives the position after the run. */
  private scanRun(bytes: Buffer, start: number, length: number): number {
    const filter = this.filter;
    const shift = this.filterShift;
    const factor = this.factor;
    const entering = this.entering;
    const leaving = this.leaving;
    let hash = this.hashOf(bytes, start);
    let end = start + HASH_PART_LENGTH;
    while (true) {
      const bits = filterBits(hash);
      if ((filter[hash >>> shift]! & bits) === bits) this.lookUp(hash, bytes, end);
      if (end >= length) return end;
      const next = bytes[end]!;
      if (isDigit[next] === 0) return end + 1;
      const change = (entering[next]! - leaving[bytes[end - HASH_PART_LENGTH]!]!) | 0;
      hash = (Math.imul(hash, factor) + change) | 0;
      end++;
    }
  }

  private lookUp(hash: number, bytes: Buffer, end: number): void {
    const candidates = this.wanted.get(hash);
    if (candidates === undefined) return;
    const seen = bytes.toString("latin1", end - HASH_PART_LENGTH, end);
    const index = candidates.indexOf(seen);
    if (index < 0) return;
    // Removed, so that a stream that repeats one reference is not scanned more slowly than others.
    candidates.splice(index, 1);
    if (candidates.length === 0) this.wanted.delete(hash);
    this.wantedCount--;
    this.found.add(seen);
  }
}

/** Shifts count modulo 32. */
function filterBits(hash: number): number {
  return (1 << hash) | (1 << (hash >>> 5));
}
