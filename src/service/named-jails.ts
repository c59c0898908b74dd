/** What named jails have on disk, which outlasts restarts of the service: when each began, and its roots. */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { JailConfig } from "../config/config.ts";
import { newSandboxId } from "../contract/runtime-tree.ts";
import { makeFolders } from "../host/make-folders.ts";
import type { NamedJail } from "../sandbox/sandbox.ts";

const FOLDER_MODE = 0o700;
const SECOND_MS = 1000;

/** A named jail that begins, or goes on after a restart. */
export interface OpenedJail extends NamedJail {
  /** Its own, beginning with its name: what `nix-broker audit --sandbox NAME.` looks for. */
  readonly id: string;
  readonly since: Date;
  /** The folder of its roots. */
  readonly roots: string;
}

export class JailFolders {
  private readonly top: string;

  constructor(stateDir: string) {
    this.top = join(stateDir, "jails");
  }

  /** @throws the system's error when its folder cannot be made */
  open({ name, lifetime }: JailConfig): OpenedJail {
    const folder = join(this.top, name);
    makeFolders(folder, FOLDER_MODE);
    const since = beginningOf(folder);
    const endsAt = new Date(since.getTime() + lifetime * SECOND_MS);
    return {
      name,
      id: `${name}.${newSandboxId()}`,
      since,
      endsAt: Number.isFinite(endsAt.getTime()) ? endsAt : undefined,
      roots: join(folder, "roots"),
    };
  }

  /** Removes the roots, and all else: when it is opened again, it is a new one. */
  remove(name: string): void {
    rmSync(join(this.top, name), { recursive: true, force: true });
  }

  /** Removes jails that are configured no longer. @returns their names */
  removeOthers(names: ReadonlySet<string>): string[] {
    const others = foldersIn(this.top).filter((name) => !names.has(name));
    for (const name of others) this.remove(name);
    return others;
  }
}

function foldersIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Written when the jail begins. */
function beginningOf(folder: string): Date {
  const file = join(folder, "since");
  try {
    const since = new Date(readFileSync(file, "utf8").trim());
    if (!Number.isNaN(since.getTime())) return since;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
  const now = new Date();
  writeFileSync(`${file}.new`, `${now.toISOString()}\n`);
  renameSync(`${file}.new`, file);
  return now;
}
