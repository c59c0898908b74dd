/** What `nix-broker audit` and its subcommands have in common: which audit, and which of its records. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { AuditError } from "../audit/error.ts";
import { escapeText } from "../audit/escape.ts";
import { SERVICE_EVENTS } from "../audit/events.ts";
import { auditFolders } from "../audit/folders.ts";
import { type AuditFilter, AuditReader } from "../audit/query.ts";
import { AUDIT_KINDS, type AuditKind, VERDICTS, type Verdict } from "../audit/record.ts";
import { parseTime } from "../audit/time.ts";
import { loadConfig } from "../config/load.ts";
import { nearest } from "../config/nearest.ts";
import { operationNames } from "../protocol/operations.ts";
import { givenStorePath } from "./given-path.ts";
import { configOption } from "./options.ts";
import { UsageError } from "./outcome.ts";

export interface StoreOptions {
  readonly config?: string;
  readonly store?: string;
}

export interface FilterOptions {
  readonly sandbox?: string;
  readonly drv?: string;
  readonly op?: string;
  readonly path?: string;
  readonly verdict?: Verdict;
  readonly kind?: AuditKind;
  readonly since?: string;
  readonly until?: string;
}

export function withStoreOptions(command: Command): Command {
  return command
    .addOption(configOption())
    .option(
      "--store <FOLDER>",
      "the audit's folder (default: the configuration's, or your own if you cannot read the system's)",
    );
}

export function withFilterOptions(command: Command): Command {
  return command
    .option("--sandbox <ID>", "in this sandbox: its id, or the beginning of it")
    .option("--drv <DRV>", "in the outer build of this derivation: a path, or the beginning of its hash")
    .option("--op <OPERATION>", "with this operation, e.g. AddToStore")
    .option("--path <PATH>", "about this store path: the path, or the beginning of its hash")
    .addOption(new Option("--verdict <VERDICT>", "with this verdict").choices(VERDICTS))
    .addOption(new Option("--kind <KIND>", "of this kind").choices(AUDIT_KINDS))
    .option(
      "--since <TIME>",
      "from this time on: 90s, 30m, 2h, 7d ago, today, yesterday, 14:30, 2026-11-22, 2026-11-22T18:00",
    )
    .option("--until <TIME>", "before then");
}

interface ChosenAudit {
  readonly folder: string;
  /** The audit that is not read, since this user may not, or there is none. */
  readonly insteadOf?: string;
}

/** An ordinary user who names no audit, and cannot read the system's, means their own: that of their jails. */
async function chosenAudit(options: StoreOptions): Promise<ChosenAudit> {
  if (options.store !== undefined) return { folder: options.store };
  const folder = (await loadConfig({ path: options.config })).audit.path;
  if (options.config !== undefined || process.env.NIX_BROKER_CONFIG || hasAudits(folder)) return { folder };
  const own = (await loadConfig({ own: true })).audit.path;
  return hasAudits(own) && own !== folder ? { folder: own, insteadOf: folder } : { folder };
}

/** The folder of the service's audit, or of the user's own. */
export async function folderOf(options: StoreOptions): Promise<string> {
  return (await chosenAudit(options)).folder;
}

/** Whether there is an audit that this user may read. */
function hasAudits(folder: string): boolean {
  try {
    return auditFolders(folder).length > 0;
  } catch (error) {
    if (error instanceof AuditError) return false;
    throw error;
  }
}

/**
 * The folders of all audits: the service's, and those of single connections and of jails. Says so if they are the user's own.
 * @throws AuditError when there is none.
 */
export async function foldersOf(options: StoreOptions): Promise<string[]> {
  const { folder, insteadOf } = await chosenAudit(options);
  if (insteadOf !== undefined)
    console.error(
      `nix-broker: this is your own audit, in ${folder}; the system's, in ${insteadOf}, is for root (sudo)`,
    );
  const folders = auditFolders(folder);
  if (folders.length > 0) return folders;
  throw new AuditError(
    "folder",
    `There is no audit in ${folder}: the service has not written one there yet, or keeps its audit elsewhere (audit.path, --store).`,
  );
}

/** What `--op` may name besides operations. */
export const AUDIT_EVENTS = ["handshake", "unknown", "Build", "begin", "end", ...SERVICE_EVENTS] as const;

/**
 * Audits of other versions may have operations with other names: one that is recorded is known.
 *
 * @throws UsageError naming the nearest operation
 */
export function requireOperation(op: string | undefined, folders: readonly string[]): void {
  const names = [...operationNames, ...AUDIT_EVENTS];
  if (op === undefined || names.some((name) => name.toLowerCase() === op.toLowerCase())) return;
  if (folders.some((folder) => isRecorded(op, folder))) return;
  const near = nearest(op, names);
  throw new UsageError(
    `--op: no operation or event is called "${escapeText(op)}"${near === undefined ? "; docs/operations.md lists them" : `; did you mean "${near}"?`}`,
  );
}

function isRecorded(op: string, folder: string): boolean {
  const reader = new AuditReader(folder);
  try {
    return reader.query({ op, limit: 1 }).length > 0;
  } finally {
    reader.close();
  }
}

/** The beginning of a hash has no slash; anything with one is a path. */
function pathOrBeginning(text: string | undefined): string | undefined {
  return text?.includes("/") ? givenStorePath(text) : text;
}

/** @throws UsageError */
export function filterOf(options: FilterOptions): AuditFilter {
  const time = (option: string, text: string | undefined): number | undefined => {
    try {
      return text === undefined ? undefined : parseTime(text);
    } catch (error) {
      throw new UsageError(`${option}: ${(error as Error).message}`);
    }
  };
  return {
    kinds: options.kind === undefined ? undefined : [options.kind],
    sandbox: options.sandbox,
    derivation: pathOrBeginning(options.drv),
    op: options.op,
    path: pathOrBeginning(options.path),
    verdict: options.verdict,
    since: time("--since", options.since),
    until: time("--until", options.until),
  };
}

export function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError("It must be a whole number from 1 on.");
  return value;
}
