/**
 * Runs `nix-store` and `nix` directly on the machine's store, bypassing the daemon: only that can register
 * references.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readlinkSync, realpathSync } from "node:fs";
import { dirname } from "node:path";
import type { RootConfig } from "../contract/root-config.ts";
import type { ProcessIdentity } from "../contract/sandbox-record.ts";
import { errorText } from "../contract/trusted-file.ts";
import type { StorePath } from "../store/store-path.ts";
import { isAlive } from "./process-tree.ts";

/** `nix-store` or `nix` is missing, or failed. */
export class NixCommandError extends Error {
  override name = "NixCommandError";
}

/** Hooks cannot rely on PATH; these are the places where Nix is. */
const usualPlaces = [
  "/run/current-system/sw/bin",
  "/nix/var/nix/profiles/default/bin",
  "/usr/local/bin",
  "/usr/bin",
];

const MAX_OUTPUT = 64 * 1024 * 1024;

export class NixStoreCommand {
  private readonly nixStore: string;
  private readonly patience: number;

  /**
   * @param worker the daemon's process: the `nix-store` beside its program is of its own version
   * @param patience how long one command may take, in milliseconds: while it hangs, no other sandbox is settled
   */
  constructor(config: RootConfig, worker: ProcessIdentity | null, patience = 600_000) {
    this.nixStore = findNixStore(config.nixStore, worker);
    this.patience = patience;
  }

  /** Registers the record in place of the existing one. @throws NixCommandError */
  load(record: string): void {
    this.run(this.nixStore, ["--load-db"], record);
  }

  /** Signs paths with a key. @throws NixCommandError */
  sign(keyFile: string, paths: readonly StorePath[]): void {
    const nix = `${dirname(this.nixStore)}/nix`;
    const modern = [
      "--extra-experimental-features",
      "nix-command",
      "store",
      "sign",
      "--key-file",
      keyFile,
      ...paths,
    ];
    const old = ["sign-paths", "--key-file", keyFile, ...paths];
    this.run(nix, / 2\.[0-3]([.p]|$)/.test(this.run(nix, ["--version"]).trim()) ? old : modern);
  }

  private run(program: string, args: readonly string[], input = ""): string {
    // A hook's NIX_CONFIG names that hook; NIX_REMOTE would lead to the daemon.
    const { NIX_REMOTE: _remote, NIX_CONFIG: _config, ...env } = process.env;
    const { error, status, signal, stdout, stderr } = spawnSync(program, args, {
      input,
      env,
      encoding: "latin1",
      maxBuffer: MAX_OUTPUT,
      timeout: this.patience,
      killSignal: "SIGKILL",
    });
    if (error) throw new NixCommandError(`cannot run ${program}: ${errorText(error)}`);
    if (status !== 0)
      throw new NixCommandError(
        `${program} ${args[0]} failed (${signal ?? status}): ${stderr.trim().slice(-2000)}`,
      );
    return stdout;
  }
}

/** @throws NixCommandError when there is none. */
function findNixStore(configured: string, worker: ProcessIdentity | null): string {
  if (configured.includes("/")) return configured;
  const places = [daemonFolder(worker), ...(process.env.PATH ?? "").split(":"), ...usualPlaces];
  for (const place of places)
    if (place.startsWith("/") && existsSync(`${place}/${configured}`)) return `${place}/${configured}`;
  throw new NixCommandError(
    `${configured} is in none of ${places.filter(Boolean).join(", ")}: set nix_store`,
  );
}

/**
 * The folder of the daemon's own program; "" once it has ended. Checked again after reading: its pid may have
 * been reused by another program meanwhile, which root must not run.
 */
function daemonFolder(worker: ProcessIdentity | null): string {
  if (!worker || !isAlive(worker)) return "";
  try {
    const program = realpathSync(readlinkSync(`/proc/${worker.pid}/exe`));
    return isAlive(worker) ? dirname(program) : "";
  } catch {
    return "";
  }
}
