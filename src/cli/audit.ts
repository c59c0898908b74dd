import { Command } from "commander";
import { jsonLine } from "../audit/json-line.ts";
import { type AuditFilter, AuditReader } from "../audit/query.ts";
import type { StoredRecord } from "../audit/record.ts";
import { exportCommand } from "./audit-export.ts";
import { headerLine, recordLine } from "./audit-lines.ts";
import {
  type FilterOptions,
  filterOf,
  folderOf,
  foldersOf,
  positive,
  requireOperation,
  type StoreOptions,
  withFilterOptions,
  withStoreOptions,
} from "./audit-options.ts";
import { verifyCommand } from "./audit-verify.ts";
import { jsonOption } from "./options.ts";

interface Options extends StoreOptions, FilterOptions {
  readonly limit: number;
  readonly follow?: true;
  readonly json?: true;
}

/** The newest records of one audit, oldest first. */
function newestOf(folder: string, filter: AuditFilter, limit: number): StoredRecord[] {
  const reader = new AuditReader(folder);
  try {
    return reader.query({ ...filter, limit }).reverse();
  } finally {
    reader.close();
  }
}

async function list(options: Options): Promise<void> {
  const filter = filterOf(options);
  const { limit, json, follow } = options;
  const service = await folderOf(options);
  const terminal = process.stdout.isTTY ? process.stdout : undefined;
  const print = (record: StoredRecord): void =>
    console.log(json ? jsonLine(record) : recordLine(record, terminal));
  const folders = await foldersOf(options);
  requireOperation(options.op, folders);
  const reader = folders.includes(service) ? new AuditReader(service) : undefined;
  try {
    const newest = reader?.lastSeq() ?? 0;
    const own = reader?.query({ ...filter, limit, beforeSeq: newest + 1 }).reverse() ?? [];
    const theirs = folders
      .filter((folder) => folder !== service)
      .flatMap((folder) => newestOf(folder, filter, limit));
    // Within one audit the order is that of the chain; between several, only the time can tell.
    const records = theirs.length === 0 ? own : [...own, ...theirs].sort((a, b) => a.time - b.time);
    if (!json && (records.length > 0 || follow)) console.log(headerLine(terminal));
    for (const record of records.slice(-limit)) print(record);
    if (follow && reader) {
      const stop = new AbortController();
      process.once("SIGINT", () => stop.abort());
      for await (const record of reader.follow({ ...filter, afterSeq: newest }, stop.signal)) print(record);
    } else if (follow) {
      console.error(
        `nix-broker: --follow prints what a service records, and none has an audit in ${service}`,
      );
    } else if (records.length === 0) {
      console.error("No record matches.");
    }
  } finally {
    reader?.close();
  }
}

export function command(): Command {
  return withFilterOptions(
    withStoreOptions(
      new Command("audit")
        .description(
          "List recorded requests, builds and events, oldest first; only the newest if there are too many.",
        )
        // Its options and those of its subcommands have the same names.
        .enablePositionalOptions(),
    ),
  )
    .option("-n, --limit <COUNT>", "how many records to list at most", positive, 100)
    .option("-f, --follow", "keep printing what the service records from now on")
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Examples:
  nix-broker audit --verdict deny --since 1h
  nix-broker audit --path 0c0h4x4c --json | jq .op
  nix-broker audit --follow
  nix-broker audit verify
  nix-broker audit export --since 7d > week.jsonl

JSON: one record per line: "seq", "time" (ISO 8601, UTC), "kind", "op", "sandbox", "outer", "connection", "uid",
"pid", "protocol", "verdict", "reason", "subjects", "durationUs", "bytesIn", "bytesOut", "upstreamError", "count",
"intent", "detail", "hash"; fields that do not apply are left out. docs/audit.md explains each.`,
    )
    .action(list)
    .addCommand(verifyCommand())
    .addCommand(exportCommand());
}
