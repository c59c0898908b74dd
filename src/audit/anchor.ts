/**
 * Anchors: heads of the chain kept where the service cannot rewrite them (the journal, a file of root's).
 * Without one, nobody could notice that records were cut off at the end, or that the whole audit was rolled
 * back to an older copy.
 *
 * The service writes them into its log, as `{"anchor":"SEQ HASH",…}`. A file of anchors has a line for each instead:
 * `SEQ HASH`, and the rest of the line is for people.
 */

import { closeSync, openSync, readSync } from "node:fs";
import { AuditError } from "./error.ts";
import type { ChainHead } from "./segment-writer.ts";

const ANCHOR = /^(\d+) ([A-Za-z0-9+/]{43}=)(\s.*)?$/;

export function formatAnchor(head: ChainHead): string {
  return `${head.seq} ${head.hash}`;
}

/** @throws AuditError when the text is not an anchor. */
export function parseAnchor(text: string): ChainHead {
  const match = ANCHOR.exec(text.trim());
  if (match === null) {
    throw new AuditError(
      "filter",
      `"${text}" is not the head of an audit, which looks like "1234 <44 characters of base64>".`,
    );
  }
  return { seq: Number(match[1]), hash: match[2]! };
}

/**
 * The anchors in lines: of an anchor file, or of the service's log, as the journal gives them back
 * (`journalctl --output=cat`). In a log only its own JSON counts: the journal cuts a line that is too long into several,
 * and the second may begin with whatever a client wrote.
 * @throws AuditError when there is no log, and a line begins with a number, as an anchor does, but is not one.
 */
export function parseAnchors(lines: Iterable<string>): ChainHead[] {
  const logged: ChainHead[] = [];
  const listed: string[] = [];
  for (const line of lines) {
    if (line.startsWith("{")) logged.push(...anchorOfLogLine(line));
    else if (logged.length === 0 && /^\s*\d/.test(line)) listed.push(line);
  }
  return logged.length > 0 ? logged : listed.map(parseAnchor);
}

/** Of a line that was cut nothing can be told. */
function anchorOfLogLine(line: string): ChainHead[] {
  // Most lines of a log are not anchors, and parsing them all takes a while.
  if (!line.includes('"anchor":')) return [];
  try {
    const { anchor } = JSON.parse(line) as { anchor?: unknown };
    return typeof anchor === "string" ? [parseAnchor(anchor)] : [];
  } catch (error) {
    if (error instanceof SyntaxError) return [];
    throw error;
  }
}

/**
 * The anchors of a file, see `parseAnchors`; of standard input for "-".
 * @throws AuditError when it cannot be read, or contains no anchor: then it would prove nothing.
 */
export function readAnchors(file: string): ChainHead[] {
  let anchors: ChainHead[];
  try {
    anchors = parseAnchors(linesOf(file));
  } catch (error) {
    if (error instanceof AuditError) throw error;
    throw new AuditError("folder", `Cannot read the anchors in ${file}: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  if (anchors.length > 0) return anchors;
  throw new AuditError(
    "filter",
    `${file === "-" ? "Standard input" : file} contains no anchor: neither a line 'SEQ HASH' nor a line of the service's log with one. Are you allowed to read the unit's journal?`,
  );
}

const CHUNK_BYTES = 1024 * 1024;

/** A log with all records in it is longer than a string can be. Anchors are ASCII, and other characters do not matter. */
function* linesOf(file: string): Generator<string, void, undefined> {
  const fd = file === "-" ? 0 : openSync(file, "r");
  try {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    let rest = "";
    for (let length = readSync(fd, chunk); length > 0; length = readSync(fd, chunk)) {
      const lines = (rest + chunk.toString("latin1", 0, length)).split("\n");
      // What is longer is no anchor, whatever follows.
      rest = (lines.pop() ?? "").slice(0, CHUNK_BYTES);
      yield* lines;
    }
    yield rest;
  } finally {
    if (fd !== 0) closeSync(fd);
  }
}
