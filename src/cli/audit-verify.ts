import { Command } from "commander";
import { formatAnchor, readAnchors } from "../audit/anchor.ts";
import { escapeText, jsonText } from "../audit/escape.ts";
import { auditFolders } from "../audit/folders.ts";
import { type VerifyResult, verifyAudit } from "../audit/verify.ts";
import { folderOf, foldersOf, type StoreOptions, withStoreOptions } from "./audit-options.ts";
import { collect, jsonOption } from "./options.ts";
import { exitCodes } from "./outcome.ts";

interface Options extends StoreOptions {
  readonly anchors?: readonly string[];
  readonly json?: true;
}

/** @param given how many anchors there were to check it against */
function sentence(folder: string, result: VerifyResult, given: number): string {
  if (!result.ok) {
    const where = [result.file, result.seq === undefined ? undefined : `record ${result.seq}`].filter(
      (part) => part !== undefined,
    );
    return `NOT COMPLETE: ${escapeText(result.problem)}\n  at ${where.join(", ") || folder}`;
  }
  const { records, firstSeq, head, anchors } = result;
  const older = firstSeq > 1 ? `; those before ${firstSeq} were retired, as recorded` : "";
  const checked =
    anchors > 0
      ? `, and matches ${anchors} anchor${anchors === 1 ? "" : "s"}`
      : given > 0
        ? ". All anchors are of earlier records, so a cut-off end would go unnoticed"
        : ". Without --anchors, records cut off at its end would go unnoticed";
  return `${folder}: complete: ${records} records${older}${checked}.\n  head: ${formatAnchor(head)}`;
}

async function verify(options: Options): Promise<void> {
  const service = await folderOf(options);
  const anchors = (options.anchors ?? []).flatMap((file) => readAnchors(file));
  // Anchors can also show that the service's audit is completely gone.
  const found = anchors.length > 0 ? auditFolders(service) : await foldersOf(options);
  const folders = anchors.length > 0 && !found.includes(service) ? [service, ...found] : found;
  for (const folder of folders) {
    const own = folder === service ? anchors : [];
    const result = verifyAudit(folder, { anchors: own });
    if (!result.ok) process.exitCode = exitCodes.notSo;
    if (options.json) console.log(jsonText({ folder, ...result }));
    else if (result.ok) console.log(sentence(folder, result, own.length));
    else console.error(sentence(folder, result, own.length));
  }
}

export function verifyCommand(): Command {
  return (
    withStoreOptions(new Command("verify"))
      .summary("prove that no record was changed, removed or added")
      .description(
        "Prove that no record was changed, removed, moved or added: follows the chain of hashes, and names the first record that does not match. Exit code 1 if there is one.",
      )
      .option(
        "--anchors <FILE>",
        "heads of the chain that were kept elsewhere, to detect that its end was cut off or that it was replaced by an older copy: the service's log, or lines 'SEQ HASH'; - for standard input; may be repeated",
        collect,
      )
      .addOption(jsonOption())
      .addHelpText(
        "after",
        `
Examples:
  nix-broker audit verify
  journalctl --unit=nix-broker --output=cat | nix-broker audit verify --anchors -`,
      )
      // Options that both commands have may be given to either.
      .action((_options, command: Command) => verify(command.optsWithGlobals()))
  );
}
