/** Points in time as people write them. */

import { AuditError } from "./error.ts";

/** Microseconds since the epoch. */
export function nowMicroseconds(): number {
  return Date.now() * 1000;
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };

/** Before now: "2h", "10 min", "1 day ago", and with the minus of journalctl. */
const RELATIVE =
  /^-?(\d+(?:\.\d+)?)\s*(s|m|h|d|w|secs?|seconds?|mins?|minutes?|hours?|days?|weeks?)(?:\s+ago)?$/;
/** Today at that time. */
const TIME_OF_DAY = /^([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?$/;

/** A date, or date and time with optional seconds, fraction and zone. Without a zone it is local time. */
const ABSOLUTE = /^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?$/;

/**
 * Reads `90s`, `30m`, `2h`, `7d`, `1w`, `2 hours ago` (before now), `@1763800000` (seconds since the epoch),
 * `now`, `today`, `yesterday`, `14:30` (today), or an ISO 8601 date, with or without time (local, unless it
 * has a zone). Returns microseconds since the epoch.
 *
 * @param now in milliseconds since the epoch.
 * @throws AuditError when it is none of these.
 */
export function parseTime(text: string, now: number = Date.now()): number {
  const trimmed = text.trim();
  const relative = RELATIVE.exec(trimmed);
  if (relative !== null) {
    return Math.round(now - Number(relative[1]) * SECONDS[relative[2]![0]!]! * 1000) * 1000;
  }
  if (trimmed === "now") return now * 1000;
  if (trimmed === "today") return midnight(now, 0) * 1000;
  if (trimmed === "yesterday") return midnight(now, -1) * 1000;
  const time = TIME_OF_DAY.exec(trimmed);
  if (time !== null)
    return new Date(now).setHours(Number(time[1]), Number(time[2]), Number(time[3] ?? 0), 0) * 1000;
  const epoch = /^@(\d+(?:\.\d+)?)$/.exec(trimmed);
  if (epoch !== null) return Math.round(Number(epoch[1]) * 1_000_000);
  if (ABSOLUTE.test(trimmed)) {
    // A bare date would be taken as UTC.
    const local = /^\d{4}-\d{2}-\d{2}$/.test(trimmed) ? `${trimmed}T00:00` : trimmed.replace(" ", "T");
    const milliseconds = Date.parse(local);
    if (!Number.isNaN(milliseconds)) return milliseconds * 1000;
  }
  throw new AuditError(
    "filter",
    `"${text}" is not a time. Use "2h", "30m", "7d" for so long ago, "today", "yesterday", "14:30", or a date like "2026-11-22" or "2026-11-22T18:00".`,
  );
}

/** When a day began in local time, the given number of days from that of `now`; not all days have the same length. */
function midnight(now: number, days: number): number {
  const date = new Date(now);
  date.setDate(date.getDate() + days);
  return date.setHours(0, 0, 0, 0);
}

/** ISO 8601 in UTC with all six digits of the microseconds. */
export function formatTime(microseconds: number): string {
  const milliseconds = Math.floor(microseconds / 1000);
  const rest = String(microseconds - milliseconds * 1000).padStart(3, "0");
  return new Date(milliseconds).toISOString().replace("Z", `${rest}Z`);
}
