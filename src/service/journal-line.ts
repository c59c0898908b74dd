/** A line of the service's log as people read it in the journal, made from pino's JSON. */
import { escapeJson, escapeText, jsonText } from "../audit/escape.ts";
import { type Priority, priorities } from "../host/journal.ts";

/** pino's levels. */
function priorityOf(level: number): Priority {
  if (level >= 60) return priorities.critical;
  if (level >= 50) return priorities.error;
  if (level >= 40) return priorities.warning;
  return level >= 30 ? priorities.info : priorities.debug;
}

/** Whatever a client sent stays within its value, and within the line. */
function valueText(value: unknown): string {
  if (typeof value === "string")
    return /^[\w/.:@+-]+$/.test(value) ? value : `"${escapeText(value).replaceAll('"', '\\"')}"`;
  return jsonText(value);
}

/**
 * `<3>upstream cannot be used yet: upstream=/socket error="…"`. Lines for programs, which are records of the audit and
 * its anchors, stay JSON.
 *
 * @param line of pino, with its newline
 */
export function journalLine(line: string): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const priority = priorityOf(Number(level));
  if (typeof fields.audit === "object" || "anchor" in fields) return `<${priority}>${escapeJson(line)}`;
  const facts = Object.entries(fields).map(([name, value]) => `${name}=${valueText(value)}`);
  const text = escapeText(String(msg));
  return `<${priority}>${facts.length === 0 ? text : `${text}: ${facts.join(" ")}`}\n`;
}
