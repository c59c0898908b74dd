/** The service's own log on standard error: text with priorities in systemd's journal, elsewhere JSON lines. */
import { type Logger, pino } from "pino";
import { escapeJson } from "../audit/escape.ts";
import type { LogLevel } from "../config/config.ts";
import { stderrIsJournal } from "../host/journal.ts";
import { journalLine } from "./journal-line.ts";

export type Log = Logger;

/** Bytes of lines that could not be written, which wait for the next one. */
const MOST_UNWRITTEN = 1024 * 1024;

export function makeLog(level: LogLevel): Log {
  const stderr = pino.destination({ fd: 2, sync: true, maxLength: MOST_UNWRITTEN });
  // A full disk behind it, or a reader that is gone: there is nowhere to say so, and clients go on being served.
  stderr.on("error", () => undefined);
  const text = stderrIsJournal() ? journalLine : escapeJson;
  return pino({ level, base: null }, { write: (line: string) => stderr.write(text(line)) });
}
