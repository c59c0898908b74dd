/** The service's own log on standard error: text with priorities in systemd's journal, elsewhere JSON lines. */
import { type Logger, pino } from "pino";
import type { LogLevel } from "../config/config.ts";
import { stderrIsJournal } from "../host/journal.ts";
import { journalLine } from "./journal-line.ts";

export type Log = Logger;

export function makeLog(level: LogLevel): Log {
  const stderr = pino.destination({ fd: 2, sync: true });
  const write = (line: string): boolean => stderr.write(journalLine(line));
  return pino({ level, base: null }, stderrIsJournal() ? { write } : stderr);
}
