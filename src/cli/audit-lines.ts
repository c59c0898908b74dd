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

/** One record on one line: cut to the terminal's width, denials and failures in colour, if it is a terminal. */
export function recordLine(record: StoredRecord, terminal?: { readonly columns: number }): string {
  const subjects = record.subjects ?? [];
  const more = subjects.length > 1 ? ` +${subjects.length - 1}` : "";
  const times = record.count !== undefined && record.count > 1 ? ` ×${record.count}` : "";
  const failures = failuresOf(record).map(
    ({ path, reason, upstreamError }) => `${shortPath(path)}: ${upstreamError ?? reason}`,
  );
  // What upstream said of all of it says nothing that is not among them.
  const said = failures.length > 0 ? failures : [record.upstreamError];
  const why = [record.reason, ...said].filter((text) => text !== undefined && text !== "");
  const columns = [
    formatTime(record.time).replace(/\d{3}Z$/, "Z"),
    (record.sandbox ?? "").slice(0, 12).padEnd(12),
    `${record.op}${times}`.padEnd(26),
    (record.verdict ?? record.kind).padEnd(7),
    (record.durationUs === undefined ? "" : milliseconds(record.durationUs)).padStart(7),
    `${shortPath(subjects[0] ?? "")}${more}`,
    ...why,
  ];
  const line = escapeText(columns.join("  ").trimEnd());
  if (terminal === undefined) return line;
  const colour = process.env.NO_COLOR ? "" : colourOf(record);
  const cut = line.slice(0, terminal.columns);
  return colour === "" ? cut : `${colour}${cut}${PLAIN}`;
}

/** The line above the columns. */
export const headerLine = [
  "TIME".padEnd(24),
  "SANDBOX".padEnd(12),
  "OPERATION".padEnd(26),
  "VERDICT",
  "MS".padStart(7),
  "SUBJECT  REASON",
].join("  ");
