/** Where everything is in the folders that the root programs share with the service (docs/linker-and-hooks.md). */
import { randomBytes } from "node:crypto";
import { chmodSync, chownSync, lstatSync, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import type { RootConfig, ServiceAccount } from "./root-config.ts";
import { errorCode, owner, requireTrusted, UntrustedFileError } from "./trusted-file.ts";

const ID_LENGTH = 32;
const ID_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789";
const idPattern = /^[a-z0-9]{32}$/;

/** The id of a sandbox: 32 characters of `a-z0-9`. */
export type SandboxId = string;

export function isSandboxId(text: string): boolean {
  return idPattern.test(text);
}

/** An id that nobody can guess. */
export function newSandboxId(): SandboxId {
  const fair = 256 - (256 % ID_CHARACTERS.length);
  let id = "";
  while (id.length < ID_LENGTH)
    for (const byte of randomBytes(ID_LENGTH))
      if (byte < fair && id.length < ID_LENGTH) id += ID_CHARACTERS[byte % ID_CHARACTERS.length];
  return id;
}

/** The places of one sandbox. */
export interface SandboxPlaces {
  readonly folder: string;
  readonly record: string;
  readonly etc: string;
  readonly socketFolder: string;
  readonly socket: string;
  readonly linked: string;
  readonly ended: string;
  /** The folder of its roots. */
  readonly roots: string;
  /** The folder of the roots that the linker creates. */
  readonly gains: string;
  /** The copy of the record that survives a reboot. */
  readonly durable: string;
}

export function sandboxesFolder(config: RootConfig): string {
  return `${config.runtimeDir}/sandboxes`;
}

export function sandboxPlaces(config: RootConfig, id: SandboxId): SandboxPlaces {
  const folder = `${sandboxesFolder(config)}/${id}`;
  return {
    folder,
    record: `${folder}/sandbox.json`,
    etc: `${folder}/etc`,
    socketFolder: `${folder}/socket.d`,
    socket: `${folder}/socket.d/socket`,
    linked: `${folder}/linked`,
    ended: `${folder}/ended`,
    roots: `${config.gcrootsDir}/${id}`,
    gains: `${config.gcrootsDir}/${id}.gains`,
    durable: `${config.gcrootsDir}/${id}.json`,
  };
}

export function derivationsFolder(config: RootConfig): string {
  return `${config.runtimeDir}/derivations`;
}

/** The folder that lists the sandboxes of one derivation, by the file name of its `.drv`. */
export function derivationIndex(config: RootConfig, derivationBase: string): string {
  return `${derivationsFolder(config)}/${derivationBase}`;
}

export function linkerSocket(config: RootConfig): string {
  return `${config.runtimeDir}/linker.sock`;
}

/** Where the compiled hooks ask the linker. */
export function hooksSocket(config: RootConfig): string {
  return `${config.runtimeDir}/hooks.sock`;
}

/**
 * Creates missing folders above the sandboxes, and checks existing ones.
 *
 * @throws UntrustedFileError when others than root can write to one of them: its contents could not be trusted.
 */
export function ensureTree(config: RootConfig, service: ServiceAccount): void {
  makeFolder(config.runtimeDir, 0o755);
  makeFolder(sandboxesFolder(config), 0o750, service.gid);
  makeFolder(derivationsFolder(config), 0o755);
  makeFolder(config.gcrootsDir, 0o755);
}

/** Creates a folder owned by root, with exactly that mode, or checks the existing one. */
function makeFolder(path: string, mode: number, group = process.getegid?.() ?? 0): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errorCode(error) === "ENOENT") {
      makeFolder(dirname(path), 0o755);
      makeFolder(path, mode, group);
      return;
    }
    if (errorCode(error) !== "EEXIST") throw error;
    const stats = lstatSync(path);
    if (!stats.isDirectory()) throw new UntrustedFileError(`${path} is not a folder`);
    requireTrusted(stats, path);
    return;
  }
  chownSync(path, owner(), group);
  chmodSync(path, mode);
}
