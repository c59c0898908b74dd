/**
 * Finds the end of a NAR by parsing it as it passes by. Only the strict canonical form is accepted, so that
 * no two readers can disagree about where it ends: exact tags, zero padding, entries in order, no surplus
 * field. Format: `src/libutil/archive.cc` in the Nix tree, and the manual's page `protocols/nix-archive.md`.
 * The bounds are those of the newest Nix (2.35), which are the tightest.
 *
 * A NAR is a sequence of strings, each a 64-bit little-endian length, the bytes, and zeros up to a multiple of 8. What
 * lies between the variable strings is always the same few bytes, so the walker is an automaton: it matches a run
 * of known bytes, or chooses between runs by one byte, or reads a length, a name, a target, padding, or passes over
 * contents. It keeps no bytes but the names on the way down to where it is.
 */

import { quote } from "./quote.ts";

/** A NAR that is not strictly canonical. */
export class NarError extends Error {
  override readonly name = "NarError";
}

/** What the root of a NAR is; `regular` is a file that is not executable. */
export type NarNodeType = "regular" | "executable" | "directory" | "symlink";

/** Nodes within nodes, the root included. */
const MAX_DEPTH = 64;
/** Bytes of an entry's name. */
const MAX_NAME = 255;
/** Bytes of a symlink's target. */
const MAX_TARGET = 4095;

/** What the bytes of a 64-bit little-endian number count. Above 2^53 the sum is inexact, and refused anyway. */
const placeValues = Float64Array.from({ length: 8 }, (_, byte) => 256 ** byte);

/** What the walker does after a run of known bytes. */
type Step =
  | "choose-type"
  | "choose-seven-letter-type"
  | "choose-contents"
  | "read-contents"
  | "read-executable-contents"
  | "open-directory"
  | "choose-entry"
  | "read-name"
  | "close-directory"
  | "read-target"
  | "close-node";

/** Bytes that must come next. */
interface Run {
  readonly bytes: Uint8Array;
  readonly then: Step;
}

/** Runs of which one must come next, by their first byte. */
interface Choice {
  readonly runs: ReadonlyMap<number, Run>;
  /** What they are, for messages. */
  readonly what: string;
}

/** What the next byte is part of. */
type Mode = "run" | "choice" | "length" | "contents" | "name" | "target" | "padding" | "done";

const header = run("choose-type", strings("nix-archive-1", "(", "type"));
const entryNode = run("choose-type", strings("node", "(", "type"));
const nodeEnd = run("close-node", strings(")"));
const entryEnd = run("choose-entry", strings(")"));

const typeChoice = choice("a file type", [
  run("open-directory", strings("directory")),
  run("choose-seven-letter-type", strings("regular").subarray(0, 8)),
]);
const sevenLetterTypeChoice = choice("a file type", [
  run("choose-contents", strings("regular").subarray(8)),
  run("read-target", Buffer.concat([strings("symlink").subarray(8), strings("target")])),
]);
const contentsChoice = choice('"executable" or "contents"', [
  run("read-executable-contents", strings("executable", "", "contents")),
  run("read-contents", strings("contents")),
]);
const entryChoice = choice('"entry" or ")"', [
  run("read-name", strings("entry", "(", "name")),
  run("close-directory", strings(")")),
]);

/** Walks over one NAR. */
export class NarWalker {
  private readonly onContents: ((slice: Buffer) => void) | undefined;
  private mode: Mode = "run";
  private run = header;
  /** How many bytes of the run have matched. */
  private matched = 0;
  private choice = typeChoice;
  /** What the current length is the length of. */
  private lengthOf: "contents" | "name" | "target" = "contents";
  /** Bytes of the length that were read, and their value. */
  private lengthBytes = 0;
  private lengthValue = 0;
  /** Bytes left of contents, name, target or padding. */
  private left = 0;
  /** Bytes of padding that follow the current contents, name or target. */
  private padding = 0;
  private afterPadding = nodeEnd;
  private name = "";
  /** The last entry's name in each directory on the way down. */
  private readonly lastNames: string[] = [];
  private walked = 0;
  private rootKind: NarNodeType | undefined;
  private failure: NarError | undefined;

  /**
   * @param onContents is given the contents of files as they pass by. A slice is part of the chunk that was pushed.
   */
  constructor(onContents?: (slice: Buffer) => void) {
    this.onContents = onContents;
  }

  /** Whether the end of the NAR was reached. */
  get done(): boolean {
    return this.mode === "done";
  }

  /** Bytes of the NAR that were seen. */
  get length(): number {
    return this.walked;
  }

  /** What the root is; undefined until that was seen. */
  get rootType(): NarNodeType | undefined {
    return this.rootKind;
  }

  /**
   * Takes the next bytes, up to the end of the NAR.
   * @returns how many bytes were taken: fewer than given only if the NAR ends before.
   * @throws NarError that says at which byte; the same one if it is called again.
   */
  push(chunk: Buffer): number {
    if (this.failure !== undefined) throw this.failure;
    let at = 0;
    while (at < chunk.length && this.mode !== "done") at = this.read(chunk, at);
    this.walked += at;
    return at;
  }

  /** Reads as far as the mode goes, and gives the position after that. */
  private read(chunk: Buffer, at: number): number {
    switch (this.mode) {
      case "run":
        return this.readRun(chunk, at);
      case "choice":
        this.choose(chunk[at]!, at);
        return at;
      case "length":
        return this.readLength(chunk, at);
      case "contents":
        return this.skipContents(chunk, at);
      case "name":
        return this.readName(chunk, at);
      case "target":
        return this.readTarget(chunk, at);
      case "padding":
        return this.readPadding(chunk, at);
      case "done":
        return at;
    }
  }

  private readRun(chunk: Buffer, start: number): number {
    const { bytes, then } = this.run;
    let at = start;
    let matched = this.matched;
    const end = Math.min(chunk.length, start + bytes.length - matched);
    while (at < end) {
      if (chunk[at] !== bytes[matched]) throw this.fail(at, `it must go on with ${printable(bytes)}`);
      at++;
      matched++;
    }
    this.matched = matched;
    if (matched === bytes.length) this.step(then, at);
    return at;
  }

  /** Consumes nothing: the byte is the first of the run that it chooses. */
  private choose(byte: number, at: number): void {
    const chosen = this.choice.runs.get(byte);
    if (chosen === undefined) throw this.fail(at, `${this.choice.what} must come next`);
    this.expect(chosen);
  }

  private step(step: Step, at: number): void {
    switch (step) {
      case "choose-type":
        if (this.lastNames.length >= MAX_DEPTH)
          throw this.fail(at, `it is nested deeper than ${MAX_DEPTH} levels`);
        this.chooseFrom(typeChoice);
        break;
      case "choose-seven-letter-type":
        this.chooseFrom(sevenLetterTypeChoice);
        break;
      case "choose-contents":
        this.chooseFrom(contentsChoice);
        break;
      case "read-contents":
        this.rootKind ??= "regular";
        this.expectLength("contents");
        break;
      case "read-executable-contents":
        this.rootKind ??= "executable";
        this.expectLength("contents");
        break;
      case "open-directory":
        this.rootKind ??= "directory";
        this.lastNames.push("");
        this.chooseFrom(entryChoice);
        break;
      case "choose-entry":
        this.chooseFrom(entryChoice);
        break;
      case "read-name":
        this.expectLength("name");
        break;
      case "close-directory":
        this.lastNames.pop();
        this.closeNode();
        break;
      case "read-target":
        this.rootKind ??= "symlink";
        this.expectLength("target");
        break;
      case "close-node":
        this.closeNode();
        break;
    }
  }

  private closeNode(): void {
    if (this.lastNames.length === 0) this.mode = "done";
    else this.expect(entryEnd);
  }

  private expect(run: Run): void {
    this.run = run;
    this.matched = 0;
    this.mode = "run";
  }

  private chooseFrom(choice: Choice): void {
    this.choice = choice;
    this.mode = "choice";
  }

  private expectLength(of: "contents" | "name" | "target"): void {
    this.lengthOf = of;
    this.lengthBytes = 0;
    this.lengthValue = 0;
    this.mode = "length";
  }

  private readLength(chunk: Buffer, start: number): number {
    let at = start;
    while (at < chunk.length && this.lengthBytes < 8)
      this.lengthValue += chunk[at++]! * placeValues[this.lengthBytes++]!;
    if (this.lengthBytes === 8) this.startString(this.lengthValue, at);
    return at;
  }

  private startString(length: number, at: number): void {
    const of = this.lengthOf;
    const longest = of === "name" ? MAX_NAME : of === "target" ? MAX_TARGET : Number.MAX_SAFE_INTEGER;
    if (length > longest) throw this.fail(at, `the ${of} must not be longer than ${longest} bytes`);
    if (length === 0 && of !== "contents") throw this.fail(at, `the ${of} must not be empty`);
    this.mode = of;
    this.left = length;
    this.padding = (8 - (length % 8)) % 8;
    this.afterPadding = of === "name" ? entryNode : nodeEnd;
    this.name = "";
    if (length === 0) this.endString();
  }

  private endString(): void {
    if (this.padding > 0) {
      this.left = this.padding;
      this.mode = "padding";
    } else this.expect(this.afterPadding);
  }

  private skipContents(chunk: Buffer, start: number): number {
    const end = Math.min(chunk.length, start + this.left);
    if (this.onContents !== undefined) this.onContents(chunk.subarray(start, end));
    this.left -= end - start;
    if (this.left === 0) this.endString();
    return end;
  }

  private readName(chunk: Buffer, start: number): number {
    const end = Math.min(chunk.length, start + this.left);
    this.name += chunk.toString("latin1", start, end);
    this.left -= end - start;
    if (this.left > 0) return end;
    const name = this.name;
    if (name === "." || name === ".." || name.includes("/") || name.includes("\0"))
      throw this.fail(end, `${quote(name)} cannot be the name of an entry`);
    const directory = this.lastNames.length - 1;
    // One character per byte, so this compares bytes, as the format requires.
    if (name <= this.lastNames[directory]!)
      throw this.fail(end, `the entry ${quote(name)} does not come after the one before it`);
    this.lastNames[directory] = name;
    this.endString();
    return end;
  }

  private readTarget(chunk: Buffer, start: number): number {
    const end = Math.min(chunk.length, start + this.left);
    for (let at = start; at < end; at++)
      if (chunk[at] === 0) throw this.fail(at, "the target of a symlink holds a NUL");
    this.left -= end - start;
    if (this.left === 0) this.endString();
    return end;
  }

  private readPadding(chunk: Buffer, start: number): number {
    const end = Math.min(chunk.length, start + this.left);
    for (let at = start; at < end; at++) if (chunk[at] !== 0) throw this.fail(at, "padding is not zero");
    this.left -= end - start;
    if (this.left === 0) this.expect(this.afterPadding);
    return end;
  }

  private fail(at: number, what: string): NarError {
    this.failure = new NarError(`The NAR is malformed at byte ${this.walked + at}: ${what}.`);
    return this.failure;
  }
}

function run(then: Step, bytes: Uint8Array): Run {
  return { bytes, then };
}

function choice(what: string, runs: Run[]): Choice {
  return { what, runs: new Map(runs.map((run) => [run.bytes[0]!, run])) };
}

function strings(...texts: string[]): Buffer {
  return Buffer.concat(
    texts.map((text) => {
      const bytes = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8);
      bytes.writeBigUInt64LE(BigInt(text.length));
      bytes.write(text, 8, "latin1");
      return bytes;
    }),
  );
}

function printable(bytes: Uint8Array): string {
  return (
    Buffer.from(bytes)
      .toString("latin1")
      .match(/[ -~]+/g) ?? []
  )
    .map(quote)
    .join(" ");
}
