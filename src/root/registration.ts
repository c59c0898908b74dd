/** Creating and removing the folder that is the registration of a sandbox. */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  mkdirSync,
  openSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import type { RootConfig, ServiceAccount } from "../contract/root-config.ts";
import {
  derivationIndex,
  ensureTree,
  isSandboxId,
  newSandboxId,
  type SandboxId,
  sandboxesFolder,
  sandboxPlaces,
} from "../contract/runtime-tree.ts";
import {
  MAX_RECORD,
  type ProcessIdentity,
  parseSandboxRecord,
  printSandboxRecord,
  type SandboxRecord,
} from "../contract/sandbox-record.ts";
import {
  errorCode,
  errorText,
  owner,
  readTrusted,
  writeTrusted,
  writeTrustedAsync,
} from "../contract/trusted-file.ts";
import type { Derivation } from "../store/derivation.ts";
import { type StorePath, storePathBase } from "../store/store-path.ts";
import { askerOf } from "./build-asker.ts";
import { clientRegistry, clientSettings } from "./client-settings.ts";
import { namesOf } from "./folder-names.ts";
import { releasedFolder } from "./nix-state.ts";
import { MAX_OUTPUTS, type OptIn } from "./opt-in.ts";
import { processStat } from "./process-tree.ts";
import { letGo, putAside } from "./put-aside.ts";

/** How often an entry in the index is tried. */
const ATTEMPTS = 5;

/**
 * The part of a record that follows from the derivation, with a new id. A derivation with too many outputs is
 * refused, and its record names none.
 */
export function recordOf(
  config: RootConfig,
  drvPath: StorePath,
  derivation: Derivation,
): Pick<SandboxRecord, "format" | "id" | "drvPath" | "storeDir" | "outputs" | "created"> {
  const outputs = derivation.outputs.size > MAX_OUTPUTS ? [] : [...derivation.outputs];
  return {
    format: 1,
    id: newSandboxId(),
    drvPath,
    storeDir: config.storeDir,
    outputs: Object.fromEntries(outputs.map(([name, { path }]) => [name, path])),
    created: Date.now(),
  };
}

/** The part of a record that says whether the build gets what it asks for, and who asked for the build. */
export async function judgement(
  config: RootConfig,
  answer: Exclude<OptIn, { readonly kind: "none" }>,
  found: ProcessIdentity | undefined,
): Promise<Pick<SandboxRecord, "kind" | "reason" | "worker" | "asker">> {
  const worker = found ?? null;
  if (answer.kind === "refused") return { ...answer, worker, asker: "" };
  try {
    return { kind: "ok", reason: "", worker, asker: worker ? await askerOf(config, worker) : "" };
  } catch (error) {
    return { kind: "refused", reason: errorText(error), worker, asker: "" };
  }
}

/** Makes the durable record of a sandbox, which exists before anything else of it. It waits for the disk. */
export async function recordDurably(
  config: RootConfig,
  service: ServiceAccount,
  record: SandboxRecord,
): Promise<void> {
  ensureTree(config, service);
  const { durable } = sandboxPlaces(config, record.id);
  await writeTrustedAsync(durable, printSandboxRecord(record), 0o640, service.gid);
}

/**
 * Creates the folder of a sandbox that has its durable record, the folders of its roots and its entry in the index. Watchers
 * see the folder only when it is complete; its roots exist before it.
 */
export function registerSandbox(config: RootConfig, service: ServiceAccount, record: SandboxRecord): void {
  const places = sandboxPlaces(config, record.id);
  const text = printSandboxRecord(record);
  folder(places.roots, 0o755, service);
  // The linker, which fills it, must not make it: a build may have been settled by then.
  folder(places.gains, 0o755, root());

  enterIndex(config, record);

  const temporary = unfinishedFolder(config, record.id);
  const group = { uid: owner(), gid: service.gid };
  folder(temporary, 0o700, group);
  folder(`${temporary}/etc`, 0o755, root());
  writeFileSync(`${temporary}/etc/nix.conf`, clientSettings, { mode: 0o644 });
  writeFileSync(`${temporary}/etc/registry.json`, clientRegistry, { mode: 0o644 });
  folder(`${temporary}/socket.d`, 0o755, service);
  writeTrusted(`${temporary}/sandbox.json`, text, 0o640, service.gid);
  chmodSync(temporary, 0o750);
  renameSync(temporary, places.folder);
}

/** Removes what hooks left that were killed before anything but that was there: a durable record under its first name. */
export function removeUnfinishedRecords(config: RootConfig): void {
  for (const name of namesOf(config.gcrootsDir)) {
    const [, pid] = /^\.[a-z0-9]{32}\.json\.([0-9]+)$/.exec(name) ?? [];
    if (pid !== undefined && !processStat(Number(pid)))
      rmSync(`${config.gcrootsDir}/${name}`, { force: true });
  }
}

/** Where the folder of a sandbox is made. */
function unfinishedFolder(config: RootConfig, id: SandboxId): string {
  return `${sandboxesFolder(config)}/.${id}`;
}

function enterIndex(config: RootConfig, record: SandboxRecord): void {
  const index = derivationIndex(config, storePathBase(record.drvPath));
  for (let attempt = 1; ; attempt++) {
    mkdirSync(index, { recursive: true, mode: 0o755 });
    try {
      writeFileSync(`${index}/${record.id}`, "", { flag: "wx", mode: 0o644 });
      return;
    } catch (error) {
      // The last earlier sandbox of this derivation was removed just now, and the folder with it.
      if (errorCode(error) !== "ENOENT" || attempt === ATTEMPTS) throw error;
    }
  }
}

/** Turns a registered sandbox into a refused one: nobody has used it yet. */
export function refuseSandbox(
  config: RootConfig,
  service: ServiceAccount,
  record: SandboxRecord,
  reason: string,
): void {
  const refusal: SandboxRecord = { ...record, kind: "refused", reason };
  writeTrusted(sandboxPlaces(config, record.id).record, printSandboxRecord(refusal), 0o640, service.gid);
}

/**
 * Says in the folder of the socket why there is none. The folder belongs to the service, so an entry that it
 * created in the way is left alone, and never followed.
 */
export function explainMissingSocket(config: RootConfig, id: SandboxId, reason: string): void {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const descriptor = openSync(`${sandboxPlaces(config, id).socketFolder}/README`, flags, 0o644);
  try {
    writeSync(descriptor, `There is no daemon in this sandbox: ${reason}\n`);
  } finally {
    closeSync(descriptor);
  }
}

/** @returns undefined when there is no such sandbox. @throws UntrustedFileError, SandboxRecordError */
export function readSandbox(config: RootConfig, id: SandboxId): SandboxRecord | undefined {
  return readRecord(sandboxPlaces(config, id).record);
}

/** The record that survives a reboot; otherwise like {@link readSandbox}. */
export function readDurable(config: RootConfig, id: SandboxId): SandboxRecord | undefined {
  return readRecord(sandboxPlaces(config, id).durable);
}

function readRecord(path: string): SandboxRecord | undefined {
  const text = readTrusted(path, MAX_RECORD);
  return text === undefined ? undefined : parseSandboxRecord(text);
}

/** The ids of the sandboxes that are registered now. */
export function listSandboxes(config: RootConfig): SandboxId[] {
  return namesOf(sandboxesFolder(config)).filter(isSandboxId);
}

/** The ids of the sandboxes that are not settled, including those from before a reboot. */
export function listDurable(config: RootConfig): SandboxId[] {
  return namesOf(config.gcrootsDir)
    .filter((name) => name.endsWith(".json"))
    .map((name) => name.slice(0, -".json".length))
    .filter(isSandboxId);
}

/** The ids of the sandboxes of one derivation. */
export function sandboxesOf(config: RootConfig, derivationBase: string): SandboxId[] {
  return namesOf(derivationIndex(config, derivationBase)).filter(isSandboxId);
}

/**
 * Takes the roots of a sandbox away; the linker removes them afterwards. The durable record is removed last, so that a crash
 * half-way is noticed.
 */
export async function releaseRoots(config: RootConfig, id: SandboxId): Promise<void> {
  const places = sandboxPlaces(config, id);
  const aside = releasedFolder(config);
  await putAside(places.roots, aside);
  await putAside(places.gains, aside);
  forgetRecord(config, id);
}

/** Removes the durable record of a sandbox that has nothing else any more, or not yet. */
export function forgetRecord(config: RootConfig, id: SandboxId): void {
  rmSync(sandboxPlaces(config, id).durable, { force: true });
}

/** Removes the folder of a sandbox, finished or not, and its entry in the index. Its roots are not touched. */
export async function removeSandbox(config: RootConfig, record: SandboxRecord): Promise<void> {
  const places = sandboxPlaces(config, record.id);
  const index = derivationIndex(config, storePathBase(record.drvPath));
  rmSync(`${index}/${record.id}`, { force: true });
  try {
    rmdirSync(index);
  } catch {
    // Another sandbox of the same derivation is listed there.
  }
  await letGo(unfinishedFolder(config, record.id));
  await letGo(places.folder);
}

function root(): ServiceAccount {
  return { uid: owner(), gid: process.getegid?.() ?? 0 };
}

/** Creates a folder with exactly that mode and owner. */
function folder(path: string, mode: number, account: ServiceAccount): void {
  mkdirSync(path, { mode: 0o700 });
  chmodSync(path, mode);
  chownSync(path, account.uid, account.gid);
}
