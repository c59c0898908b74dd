/** Writes records as JSON lines to a stream that may be slow. */

import { once } from "node:events";
import type { Writable } from "node:stream";
import { jsonLine } from "./json-line.ts";
import type { AuditFilter, AuditReader } from "./query.ts";

/** Characters written at once. */
const CHUNK = 64 * 1024;

/**
 * Exports the records that match the filter, oldest first unless it says otherwise, including intents.
 * Returns how many there were. Memory stays bounded: it waits for the stream to drain.
 * @throws the stream's error.
 */
export async function exportRecords(
  reader: AuditReader,
  filter: AuditFilter,
  output: Writable,
): Promise<number> {
  let records = 0;
  let chunk = "";
  for (const record of reader.iterate({ order: "oldest", completedIntents: true, ...filter })) {
    chunk += `${jsonLine(record)}\n`;
    records += 1;
    if (chunk.length < CHUNK) continue;
    if (!output.write(chunk)) await once(output, "drain");
    chunk = "";
  }
  if (chunk !== "" && !output.write(chunk)) await once(output, "drain");
  return records;
}
