/** Whether standard error is systemd's journal, and how lines get a priority there: systemd.exec(5), sd-daemon(3). */
import { fstatSync } from "node:fs";

/** Priorities of syslog(3). */
export const priorities = { critical: 2, error: 3, warning: 4, info: 6, debug: 7 } as const;
export type Priority = (typeof priorities)[keyof typeof priorities];

const STDERR = 2;

/** The journal says which stream it gave; somebody may have redirected it since. */
export function stderrIsJournal(environment: NodeJS.ProcessEnv = process.env): boolean {
  const match = /^(\d+):(\d+)$/.exec(environment.JOURNAL_STREAM ?? "");
  if (!match) return false;
  const { dev, ino } = fstatSync(STDERR, { bigint: true });
  return dev === BigInt(match[1]!) && ino === BigInt(match[2]!);
}

/** Each line of a text with its priority. */
export function prioritized(text: string, priority: Priority): string {
  return text
    .split("\n")
    .map((line) => `<${priority}>${line}`)
    .join("\n");
}
