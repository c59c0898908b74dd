import { Command } from "commander";
import { exportRecords } from "../audit/export.ts";
import { AuditReader } from "../audit/query.ts";
import {
  type FilterOptions,
  filterOf,
  foldersOf,
  requireOperation,
  type StoreOptions,
  withFilterOptions,
  withStoreOptions,
} from "./audit-options.ts";

async function exportAll(options: StoreOptions & FilterOptions): Promise<void> {
  const filter = filterOf(options);
  const folders = await foldersOf(options);
  requireOperation(options.op, folders);
  for (const folder of folders) {
    const reader = new AuditReader(folder);
    try {
      await exportRecords(reader, filter, process.stdout);
    } finally {
      reader.close();
    }
  }
}

export function exportCommand(): Command {
  return (
    withFilterOptions(withStoreOptions(new Command("export")))
      .summary("write records as JSON lines")
      .description(
        "Write every matching record as a line of JSON, oldest first, in the format of 'nix-broker audit --json', including intents.",
      )
      .addHelpText(
        "after",
        `
Examples:
  nix-broker audit export > audit.jsonl
  nix-broker audit export --verdict deny --since 7d | jq -r .reason | sort | uniq -c`,
      )
      // Options that both commands have may be given to either.
      .action((_options, command: Command) => exportAll(command.optsWithGlobals()))
  );
}
