/**
 * Finds references in a stream of bytes, as Nix does: a reference is the 32-character hash part of a store path,
 * wherever it stands. Nix's own: `src/libstore/references.cc`.
 *
 * The bytes are untrusted, so the time must be linear whatever they are. Of every 28 bytes, five are looked at: each window of
 * 32 bytes holds five such, and only if these occur in a hash part that is wanted, a rolling hash of the windows around them
 * is looked up. It has random coefficients: a prefix table could be flooded by somebody who searches for paths with a common
 * prefix.
 */

import { randomFillSync } from "node:crypto";
import { BASE32_ALPHABET } from "./base32.ts";
import { quote } from "./quote.ts";
import { HASH_PART_LENGTH, isHashPart, StorePathError } from "./store-path.ts";

/** Larger than the number that any five digits make. */
const NO_DIGIT = 1 << 25;
/** The value of each byte as a base 32 digit. */
const digitOf = Int32Array.from({ length: 256 }, (_, byte) => {
  const value = BASE32_ALPHABET.indexOf(String.fromCharCode(byte));
  return value < 0 ? NO_DIGIT : value;
});

/** This many bytes are looked at together. */
const SAMPLE = 5;
/** How far one sample is from the next: each window holds exactly one. */
const STRIDE = HASH_PART_LENGTH - SAMPLE + 1;
/** Bits of the table of samples for each hash part, which holds 28 different ones. Powers of two: 8 KiB to 4 MiB. */
const SAMPLE_BITS_EACH = 16 * STRIDE;
const MIN_SAMPLE_BITS = 16;
const MAX_SAMPLE_BITS = 5 * SAMPLE;

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
  /** Which samples occur in what is wanted: by their lowest bits, a bit for each. */
  private samples = new Int32Array();
  private sampleMask = 0;
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
   * Takes the next bytes. The worst input, made of what is looked for, is scanned at about 0.1 GB/s, so on an event loop that serves
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
    const words = bitsFor(count * FILTER_BITS_EACH, MIN_FILTER_BITS, MAX_FILTER_BITS) - 5;
    this.filter = new Int32Array(2 ** words);
    this.filterShift = 32 - words;
    const sampleBits = bitsFor(count * SAMPLE_BITS_EACH, MIN_SAMPLE_BITS, MAX_SAMPLE_BITS);
    this.samples = new Int32Array(2 ** (sampleBits - 5));
    this.sampleMask = 2 ** sampleBits - 1;
  }

  private want(hashPart: string): void {
    if (!isHashPart(hashPart))
      throw new StorePathError(`${quote(hashPart)} is not the hash part of a store path.`);
    const bytes = Buffer.from(hashPart, "latin1");
    const hash = this.hashOf(bytes, 0);
    this.filter[hash >>> this.filterShift]! |= filterBits(hash);
    const same = this.wanted.get(hash);
    if (same === undefined) this.wanted.set(hash, [hashPart]);
    else same.push(hashPart);
    for (let at = 0; at < STRIDE; at++) {
      const sample = sampleAt(bytes, at) & this.sampleMask;
      this.samples[sample >>> 5]! |= 1 << sample;
    }
  }

  private hashOf(bytes: Buffer, start: number): number {
    let hash = 0;
    for (let at = start; at < start + HASH_PART_LENGTH; at++)
      hash = (Math.imul(hash, this.factor) + this.entering[bytes[at]!]!) | 0;
    return hash;
  }

  private scan(bytes: Buffer, length: number): void {
    const samples = this.samples;
    const mask = this.sampleMask;
    const last = length - HASH_PART_LENGTH;
    let hash = 0;
    /** The first window whose rolling hash is not known. */
    let next = -1;
    for (let first = 0; first <= last; first += STRIDE) {
      const sample = sampleAt(bytes, first + STRIDE - 1);
      if (sample >= NO_DIGIT || (samples[(sample & mask) >>> 5]! & (1 << sample)) === 0) continue;
      const end = Math.min(first + STRIDE, last + 1);
      hash = this.scanWindows(bytes, first, end, first === next ? hash : undefined);
      next = end;
    }
  }

  /**
   * Looks up windows that follow each other.
   * @param before the rolling hash of the window before the first, if it is known
   * @returns that of the last
   */
  private scanWindows(bytes: Buffer, first: number, end: number, before: number | undefined): number {
    const filter = this.filter;
    const shift = this.filterShift;
    const factor = this.factor;
    const entering = this.entering;
    const leaving = this.leaving;
    let hash = before ?? this.hashOf(bytes, first);
    let start = first;
    if (before === undefined) this.lookUp(hash, bytes, start++);
    for (; start < end; start++) {
      const change = (entering[bytes[start + HASH_PART_LENGTH - 1]!]! - leaving[bytes[start - 1]!]!) | 0;
      hash = (Math.imul(hash, factor) + change) | 0;
      const bits = filterBits(hash);
      if ((filter[hash >>> shift]! & bits) === bits) this.lookUp(hash, bytes, start);
    }
    return hash;
  }

  private lookUp(hash: number, bytes: Buffer, start: number): void {
    const candidates = this.wanted.get(hash);
    if (candidates === undefined) return;
    const seen = bytes.toString("latin1", start, start + HASH_PART_LENGTH);
    const index = candidates.indexOf(seen);
    if (index < 0) return;
    // Removed, so that a stream that repeats one reference is not scanned more slowly than others.
    candidates.splice(index, 1);
    if (candidates.length === 0) this.wanted.delete(hash);
    this.wantedCount--;
    this.found.add(seen);
  }
}

/** The power of two, within bounds, that so many need. */
function bitsFor(count: number, least: number, most: number): number {
  return Math.min(Math.max(Math.ceil(Math.log2(count + 1)), least), most);
}

/** Five digits as one number; at least {@link NO_DIGIT} where they are not digits. The last one tells most of the time. */
function sampleAt(bytes: Buffer, at: number): number {
  const last = digitOf[bytes[at + 4]!]!;
  if (last >= NO_DIGIT) return NO_DIGIT;
  const first = digitOf[bytes[at]!]!;
  const second = digitOf[bytes[at + 1]!]!;
  const third = digitOf[bytes[at + 2]!]!;
  const fourth = digitOf[bytes[at + 3]!]!;
  if ((first | second | third | fourth) >= NO_DIGIT) return NO_DIGIT;
  return (first << 20) | (second << 15) | (third << 10) | (fourth << 5) | last;
}

/** Shifts count modulo 32. */
function filterBits(hash: number): number {
  return (1 << hash) | (1 << (hash >>> 5));
}
