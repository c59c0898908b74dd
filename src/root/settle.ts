/**
 * Settling a sandbox whose build is over: whatever its outputs mention of the gained paths becomes a
 * reference of theirs, then the roots are removed. Done by the post-build hook, or by the linker if the hook
 * did not run to its end. Repeating it changes nothing, and references are only ever added.
 */
import { existsSync } from "node:fs";
import type { RootConfig } from "../contract/root-config.ts";
import { sandboxPlaces } from "../contract/runtime-tree.ts";
import type { SandboxRecord } from "../contract/sandbox-record.ts";
import { errorCode, errorText } from "../contract/trusted-file.ts";
import type { Derivation } from "../store/derivation.ts";
import { noPause } from "../store/slices.ts";
import { type StorePath, storePathBase } from "../store/store-path.ts";
import { DaemonQuery } from "./daemon-query.ts";
import { databaseRecord, printDatabaseRecord, withReferences } from "./database-record.ts";
import { readDerivation } from "./derivation-file.ts";
import { gainsOf } from "./gains.ts";
import { NixStoreCommand } from "./nix-store-command.ts";
import { mentionedPaths } from "./output-scan.ts";
import { type CheckedOutput, referenceViolations } from "./reference-checks.ts";
import { releaseRoots, removeSandbox } from "./registration.ts";
import { type SandboxEnd, writeEnd } from "./sandbox-end.ts";

/** Of what `nix-store` said, in characters. */
const MAX_ERROR = 4096;
/** Paths of one question to the daemon. */
const QUESTION = 10_000;

/**
 * Settles a sandbox, removes its roots unless that failed, and records it in `ended`.
 * @param keyFiles the daemon's `secret-key-files`
 */
export async function settle(
  config: RootConfig,
  record: SandboxRecord,
  keyFiles: string,
): Promise<SandboxEnd> {
  const { folder } = sandboxPlaces(config, record.id);
  let end: SandboxEnd;
  try {
    end = await registerReferences(config, record, keyFiles);
    // What a hook left that was killed while it made the folder. The durable record stays until that is gone.
    if (!existsSync(folder)) await removeSandbox(config, record);
    await releaseRoots(config, record.id);
  } catch (error) {
    end = { ...nothingDone("pending"), error: errorText(error).slice(0, MAX_ERROR) };
  }
  writeEnd(config, record.id, end);
  return end;
}

async function registerReferences(
  config: RootConfig,
  record: SandboxRecord,
  keyFiles: string,
): Promise<SandboxEnd> {
  const daemon = new DaemonQuery(config.upstreamSocket, config.storeDir);
  try {
    const outputs = Object.entries(record.outputs).filter(([, path]) => path !== "");
    // Collected between the question and the registration, one would be registered as valid without being there. The
    // build's worker keeps them only as long as it lives, and may be killed at any moment.
    for (const [, path] of outputs) await daemon.keep(path);
    const valid = await daemon.validPaths(outputs.map(([, path]) => path));
    const built = outputs.filter(([, path]) => valid.has(path));
    if (built.length === 0) return nothingDone("failed");
    const gains = gainsOf(config, record.id);
    const references: Record<StorePath, StorePath[]> = Object.create(null);
    if (gains.length > 0) {
      const mentions = built.map(([, path]) => ({
        path,
        found: mentionedPaths(config.storeReal, path, gains),
      }));
      const known = await validAmong(new Set(mentions.flatMap(({ found }) => found)), daemon);
      const nix = new NixStoreCommand(config, record.worker);
      for (const { path, found } of mentions) {
        const mentioned = found.filter((each) => each !== path && known.has(each));
        if (mentioned.length === 0) continue;
        if (!(await addReferences(config, nix, path, mentioned, daemon))) continue;
        // Including what an earlier attempt added that was interrupted before it signed or checked.
        references[path] = mentioned.sort();
      }
      signAgain(config, nix, Object.keys(references), keyFiles);
    }
    const violations = await violationsOf(config, record, built, references, daemon);
    return { ...nothingDone("registered"), references, violations };
  } finally {
    daemon.close();
  }
}

/** Which of the paths are valid; the others are passed over. */
async function validAmong(paths: ReadonlySet<StorePath>, daemon: DaemonQuery): Promise<Set<StorePath>> {
  const asked = [...paths];
  const valid = new Set<StorePath>();
  for (let start = 0; start < asked.length; start += QUESTION)
    for (const path of await daemon.validPaths(asked.slice(start, start + QUESTION)))
      if (paths.has(path)) valid.add(path);
  return valid;
}

/**
 * Registers the references that the output does not have yet.
 * @returns false for one that is content-addressed, which can have none but its own: such builds gain nothing, but the service
 *   can make links in their folders.
 */
async function addReferences(
  config: RootConfig,
  nix: NixStoreCommand,
  output: StorePath,
  mentioned: readonly StorePath[],
  daemon: DaemonQuery,
): Promise<boolean> {
  const info = await daemon.info(output);
  if (!info) throw new Error(`${output} is no longer valid, though it is kept from the collector`);
  if (info.contentAddress !== "") return false;
  const record = databaseRecord(output, info);
  const added = mentioned.filter((path) => !record.references.includes(path)).sort();
  if (added.length > 0) nix.load(printDatabaseRecord(withReferences(record, added), config.storeDir));
  return true;
}

/** The signatures covered the old references, and were dropped with them. */
function signAgain(
  config: RootConfig,
  nix: NixStoreCommand,
  paths: readonly StorePath[],
  keyFiles: string,
): void {
  if (paths.length === 0) return;
  const keys = config.secretKeyFiles.length > 0 ? config.secretKeyFiles : keyFiles.split(" ");
  for (const key of keys) if (key !== "") nix.sign(key, paths);
}

async function violationsOf(
  config: RootConfig,
  record: SandboxRecord,
  built: readonly (readonly [string, StorePath])[],
  references: Readonly<Record<StorePath, readonly StorePath[]>>,
  daemon: DaemonQuery,
): Promise<string[]> {
  if (Object.keys(references).length === 0) return [];
  const derivation = await derivationOf(config, record);
  if (!derivation) return [];
  const outputs: CheckedOutput[] = [];
  for (const [name, path] of built)
    outputs.push({
      name,
      path,
      added: references[path] ?? [],
      ...(await closureOf(path, references, daemon)),
    });
  return referenceViolations(derivation, outputs, config.storeDir);
}

/** @returns undefined where it was collected: what it asks for is not known any more, and would not be at another attempt. */
async function derivationOf(config: RootConfig, record: SandboxRecord): Promise<Derivation | undefined> {
  try {
    return await readDerivation(config, storePathBase(record.drvPath), noPause);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** @param added references that were registered just now: on this connection, the daemon may remember the time before */
async function closureOf(
  path: StorePath,
  added: Readonly<Record<StorePath, readonly StorePath[]>>,
  daemon: DaemonQuery,
): Promise<{ closure: Set<StorePath>; closureSize: number }> {
  const closure = new Set([path]);
  let closureSize = 0;
  for (const next of closure) {
    const info = await daemon.info(next);
    closureSize += info?.narSize ?? 0;
    for (const reference of [...(info?.references ?? []), ...(added[next] ?? [])]) closure.add(reference);
  }
  return { closure, closureSize };
}

function nothingDone(outcome: SandboxEnd["outcome"]): SandboxEnd {
  return { format: 1, outcome, at: Date.now(), references: {}, violations: [], error: "" };
}
