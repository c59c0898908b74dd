/** `sandbox.json`: what a sandbox is. Written only by root, and therefore trusted by the linker. */
import { isAskerMark } from "../store/asker-mark.ts";
import { isStoreBase, isStorePath, type StorePath } from "../store/store-path.ts";
import { isSandboxId, type SandboxId } from "./runtime-tree.ts";

/** A process, told apart from later ones with the same pid. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Field 22 of `/proc/<pid>/stat`: clock ticks since the machine started. */
  readonly startTime: string;
  /** The kernel's `boot_id`: after a reboot, pid and ticks may be those of another process. */
  readonly boot: string;
}

export interface SandboxRecord {
  readonly format: 1;
  readonly id: SandboxId;
  readonly kind: "ok" | "refused";
  /** Why it was refused: one line for people. "" if it was not. */
  readonly reason: string;
  /** Made by the pre-build hook, or by the linker for a client on a static socket. */
  readonly origin: "hook" | "static";
  readonly drvPath: StorePath;
  readonly storeDir: string;
  /** The outputs by name; the path is "" where it is not known before the build. */
  readonly outputs: Readonly<Record<string, StorePath | "">>;
  /** The root of the build's mounts, relative to the store's folder; `null` if it has none. */
  readonly chroot: string | null;
  /** The nix-daemon process that builds; `null` if it is not one. */
  readonly worker: ProcessIdentity | null;
  /** The mark of the sandbox that asked for the build; "" if the broker did not. */
  readonly asker: StorePath | "";
  /** Milliseconds since 1970. */
  readonly created: number;
}

/** Longer records are not read. */
export const MAX_RECORD = 64 * 1024;

/** A text that should be a `sandbox.json`, but is not. */
export class SandboxRecordError extends Error {
  override name = "SandboxRecordError";
}

export function printSandboxRecord(record: SandboxRecord): string {
  return `${JSON.stringify(record, null, 2)}\n`;
}

const keys = "asker chroot created drvPath format id kind origin outputs reason storeDir worker";

/** @throws SandboxRecordError that names the first field that is wrong. */
export function parseSandboxRecord(text: string): SandboxRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new SandboxRecordError("sandbox.json is not JSON");
  }
  const wrong = (field: string): never => {
    throw new SandboxRecordError(`sandbox.json: "${field}" is missing or wrong`);
  };
  if (!isObject(value)) return wrong("format");
  const record = value;
  if (Object.keys(record).sort().join(" ") !== keys) return wrong("keys");
  if (record.format !== 1) return wrong("format");
  const { id, kind, reason, origin, drvPath, storeDir, outputs, chroot, worker, asker, created } = record;
  if (typeof id !== "string" || !isSandboxId(id)) return wrong("id");
  if (kind !== "ok" && kind !== "refused") return wrong("kind");
  if (typeof reason !== "string" || (kind === "refused") !== (reason !== "")) return wrong("reason");
  if (origin !== "hook" && origin !== "static") return wrong("origin");
  if (typeof storeDir !== "string" || !storeDir.startsWith("/")) return wrong("storeDir");
  if (typeof drvPath !== "string" || !isStorePath(drvPath, storeDir) || !drvPath.endsWith(".drv"))
    return wrong("drvPath");
  if (chroot !== null && (typeof chroot !== "string" || !isChrootPath(chroot))) return wrong("chroot");
  if (worker !== null && !isProcessIdentity(worker)) return wrong("worker");
  if (typeof asker !== "string" || (asker !== "" && !isAskerMark(asker, storeDir))) return wrong("asker");
  if (kind === "ok" && (chroot === null || worker === null)) return wrong("chroot");
  if (typeof created !== "number" || !Number.isSafeInteger(created)) return wrong("created");
  if (!isObject(outputs)) return wrong("outputs");
  const checked: Record<string, StorePath | ""> = Object.create(null);
  for (const [name, path] of Object.entries(outputs)) {
    if (typeof path !== "string" || (path !== "" && !isStorePath(path, storeDir))) return wrong("outputs");
    checked[name] = path;
  }
  return {
    format: 1,
    id,
    kind,
    reason,
    origin,
    drvPath,
    storeDir,
    outputs: checked,
    chroot,
    worker,
    asker,
    created,
  };
}

/** Whether the text is `<name of a .drv>.chroot`, or that and `/root`. */
export function isChrootPath(text: string): boolean {
  const match = /^([^/]+\.drv)\.chroot(\/root)?$/.exec(text);
  return match !== null && isStoreBase(match[1]!);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isProcessIdentity(value: unknown): value is ProcessIdentity {
  return (
    isObject(value) &&
    Object.keys(value).length === 3 &&
    typeof value.pid === "number" &&
    Number.isSafeInteger(value.pid) &&
    value.pid > 0 &&
    typeof value.startTime === "string" &&
    /^[0-9]{1,20}$/.test(value.startTime) &&
    typeof value.boot === "string" &&
    /^[0-9a-f-]{1,64}$/.test(value.boot)
  );
}
