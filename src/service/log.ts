/** The service's own log: JSON lines on standard error, for the journal. */
import { type Logger, pino } from "pino";
import type { LogLevel } from "../config/config.ts";

export type Log = Logger;

export function makeLog(level: LogLevel): Log {
  return pino({ level, base: null }, pino.destination({ fd: 2, sync: true }));
}
