/**
 * Anchors: heads of the chain kept where the service cannot rewrite them (the journal, a file of root's).
 * Without one, nobody could notice that records were cut off at the end, or that the whole audit was rolled
 * back to an older copy.
 *
 * The service writes them into its log, as `{"anchor":"SEQ HASH",…}`. A file of anchors has a line for each:
 * `SEQ HASH`, and the rest of the line is for people.
 */

import { readFileSync } from "node:fs";
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
 * The anchors in a text: lines of an anchor file, and lines of the service's log, as the journal gives them
 * back (`journalctl --output=cat`). Other lines are skipped: systemd's lines about the unit are among them.
 * @throws AuditError when a line begins with a number, as an anchor does, but is not one.
 */
export function parseAnchors(text: string): ChainHead[] {
  return text
    .split("\n")
    .flatMap((line) =>
      line.startsWith("{") ? anchorOfLogLine(line) : /^\s*\d/.test(line) ? [parseAnchor(line)] : [],
    );
}

/** The journal cuts lines that are too long; such a line is about something else. */
function anchorOfLogLine(line: string): ChainHead[] {
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
  let text: string;
  try {
    text = readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (error) {
    throw new AuditError("folder", `Cannot read the anchors in ${file}: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  const anchors = parseAnchors(text);
  if (anchors.length > 0) return anchors;
  throw new AuditError(
    "filter",
    `${file === "-" ? "Standard input" : file} contains no anchor: neither a line 'SEQ HASH' nor a line of the service's log with one. Are you allowed to read the unit's journal?`,
  );
}
