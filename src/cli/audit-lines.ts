/** Records as lines for a terminal, with aligned columns. */
import { escapeText } from "../audit/escape.ts";
import { failuresOf, hasFailed } from "../audit/failures.ts";
import type { StoredRecord } from "../audit/record.ts";
import { formatTime } from "../audit/time.ts";

/** A store path without the store's folder: the hash comes first, which is what `--path` and `--drv` take. */
function shortPath(subject: string): string {
  return subject.slice(subject.lastIndexOf("/") + 1) || subject;
}

function milliseconds(microseconds: number): string {
  return microseconds < 10_000 ? (microseconds / 1000).toFixed(1) : String(Math.round(microseconds / 1000));
}

const RED = "\u001b[31m";
const YELLOW = "\u001b[33m";
const PLAIN = "\u001b[0m";

function colourOf(record: StoredRecord): string {
  if (record.verdict === "deny") return RED;
  return hasFailed(record) ? YELLOW : "";
}

/** What a line says of a record: facts of a known width, and the text that matters most, which has none. */
interface Facts {
  readonly time: string;
  readonly sandbox: string;
  readonly operation: string;
  readonly verdict: string;
  readonly duration: string;
  readonly subject: string;
  readonly reason: string;
}

function factsOf(record: StoredRecord): Facts {
  const subjects = record.subjects ?? [];
  const more = subjects.length > 1 ? ` +${subjects.length - 1}` : "";
  const times = record.count !== undefined && record.count > 1 ? ` ×${record.count}` : "";
  const failures = failuresOf(record).map(
    ({ path, reason, upstreamError }) => `${shortPath(path)}: ${upstreamError ?? reason}`,
  );
  // What upstream said of all of it says nothing that is not among them.
  const said = failures.length > 0 ? failures : [record.upstreamError];
  const why = [record.reason, ...said].filter((text) => text !== undefined && text !== "");
  return {
    time: formatTime(record.time),
    sandbox: escapeText((record.sandbox ?? "").slice(0, 12)),
    operation: escapeText(`${record.op}${times}`),
    verdict: record.verdict ?? record.kind,
    duration: record.durationUs === undefined ? "" : milliseconds(record.durationUs),
    subject: escapeText(`${shortPath(subjects[0] ?? "")}${more}`),
    reason: escapeText(why.join("  ")),
  };
}

const GAP = "  ";
const OPERATION_WIDTH = 26;
/** What a subject and its reason should have beside the other columns; with less, they get lines of their own. */
const LEAST_TEXT = 50;

/** All columns on one line. */
function wideHead({ time, sandbox, operation, verdict, duration }: Facts): string {
  return [
    time.replace(/\d{3}Z$/, "Z").padEnd(24),
    sandbox.padEnd(12),
    operation.padEnd(OPERATION_WIDTH),
    verdict.padEnd(7),
    duration.padStart(7),
  ].join(GAP);
}

/** As many columns as fit, the most important first. */
function narrowHead({ time, sandbox, operation, verdict, duration }: Facts, width: number): string {
  const columns = [
    time.replace(/\.\d+Z$/, "Z").padEnd(20),
    operation.padEnd(OPERATION_WIDTH),
    verdict.padEnd(7),
    duration.padStart(7),
    sandbox,
  ];
  while (columns.length > 3 && columns.join(GAP).trimEnd().length > width) columns.pop();
  return columns.join(GAP).trimEnd();
}

/** Lines of at most that width, broken between words where there are any. */
export function wrapped(text: string, width: number): string[] {
  const lines: string[] = [];
  for (let rest = text; rest !== ""; ) {
    if (rest.length <= width) {
      lines.push(rest);
      break;
    }
    const space = rest.lastIndexOf(" ", width);
    const end = space > 0 ? space : width;
    lines.push(rest.slice(0, end).trimEnd());
    rest = rest.slice(end).trimStart();
  }
  return lines;
}

/** The width that a terminal has; some say that they have none. */
function widthOf({ columns }: { readonly columns?: number }): number {
  return columns === undefined || columns < 1 ? 80 : columns;
}

function terminalLines(facts: Facts, width: number): string[] {
  const head = wideHead(facts);
  const room = width - head.length - GAP.length;
  if (room >= LEAST_TEXT) {
    const text = wrapped([facts.subject, facts.reason].join(GAP).trimEnd(), room);
    const indent = " ".repeat(head.length);
    return [head, ...text.slice(1).map(() => indent)].map((start, i) =>
      `${start}${GAP}${text[i] ?? ""}`.trimEnd(),
    );
  }
  const own = [facts.subject, facts.reason].flatMap((text) =>
    wrapped(text, Math.max(20, width - GAP.length)),
  );
  return [...wrapped(narrowHead(facts, width), width), ...own.map((line) => `${GAP}${line}`)];
}

/**
 * A record for people: one line, or on a terminal as many as its width asks for, denials and failures in colour. Nothing is
 * cut.
 */
export function recordLine(record: StoredRecord, terminal?: { readonly columns?: number }): string {
  const facts = factsOf(record);
  if (terminal === undefined) return [wideHead(facts), facts.subject, facts.reason].join(GAP).trimEnd();
  const text = terminalLines(facts, widthOf(terminal)).join("\n");
  const colour = process.env.NO_COLOR ? "" : colourOf(record);
  return colour === "" ? text : `${colour}${text}${PLAIN}`;
}

/** What is above the columns. */
export function headerLine(terminal?: { readonly columns?: number }): string {
  const facts: Facts = {
    time: "TIME",
    sandbox: "SANDBOX",
    operation: "OPERATION",
    verdict: "VERDICT",
    duration: "MS",
    subject: "SUBJECT",
    reason: "REASON",
  };
  if (terminal === undefined) return [wideHead(facts), facts.subject, facts.reason].join(GAP);
  return terminalLines(facts, widthOf(terminal)).join("\n");
}
