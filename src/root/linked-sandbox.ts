/** One sandbox in the linker: its chroot, what it may still use, and the requests that wait for it. */
import { existsSync, lstatSync } from "node:fs";
import { LinkError } from "../contract/link-error.ts";
import type { RootConfig } from "../contract/root-config.ts";
import { sandboxPlaces } from "../contract/runtime-tree.ts";
import type { SandboxRecord } from "../contract/sandbox-record.ts";
import { errorCode, errorText } from "../contract/trusted-file.ts";
import { type StorePath, storePathBase } from "../store/store-path.ts";
import { Chroot, ChrootError, type FolderIdentity } from "./chroot.ts";
import { takeUsed } from "./copy-usage.ts";
import { Gains } from "./gains.ts";
import { type LockReading, readLocks } from "./output-locks.ts";
import { hasEnded } from "./process-tree.ts";
import { type CopyBudget, copyIntoChroot, linksAreCheap } from "./store-copy.ts";
import { Turns } from "./turns.ts";

/** How many consecutive readings must find that the worker does not have the locks. */
const FREE_READINGS = 2;

export class LinkedSandbox {
  readonly record: SandboxRecord;
  /** Why nothing can be linked into it; undefined while its chroot is open. */
  problem: string | undefined;
  /** Requests that wait or are under way. */
  waiting = 0;
  private readonly config: RootConfig;
  private readonly budget: CopyBudget;
  private chroot: Chroot | undefined;
  private gains: Gains | undefined;
  private tail: Promise<unknown> = Promise.resolve();
  private goneSince: number | undefined;
  /** Whether the locks of its outputs were seen with its worker. */
  private locked = false;
  /** Readings since then that did not find them. */
  private free = 0;

  constructor(config: RootConfig, record: SandboxRecord) {
    this.config = config;
    this.record = record;
    this.budget = { entries: config.maxEntries, bytes: config.maxBytes };
    this.problem = record.kind === "refused" ? record.reason : "its chroot is not open yet";
  }

  /**
   * Opens the chroot of a sandbox that was not refused.
   * @param known the chroot that was opened before a restart of the linker
   * @returns the chroot's identity.
   * @throws ChrootError and errors of the operating system
   */
  open(known: FolderIdentity | undefined): FolderIdentity {
    const { chroot: path, storeDir, worker } = this.record;
    if (path === null || storeDir !== this.config.storeDir)
      throw new ChrootError("the sandbox belongs to another store");
    // What is at its place now may be the chroot of the same derivation, built again.
    const isSettled = !existsSync(sandboxPlaces(this.config, this.record.id).gains);
    if (isSettled || (worker && hasEnded(worker))) throw new ChrootError("its build is over");
    this.gains = new Gains(this.config, this.record.id);
    const chroot = new Chroot(this.config.storeReal, path, storeDir, known);
    const { identity } = chroot;
    this.chroot = chroot;
    this.problem = undefined;
    if (known) this.tail = this.countUsed(chroot);
    // The hook still waits for this: the build cannot have released them yet, however short it is.
    this.locked = this.readLocks() === "held";
    return identity;
  }

  private async countUsed(chroot: Chroot): Promise<void> {
    const turns = new Turns();
    try {
      await turns.during(async () => {
        await takeUsed(Buffer.from(chroot.folder), this.budget, turns);
        await this.gains?.countKnown(turns);
      });
    } catch (error) {
      this.problem = `what was linked before cannot be counted: ${errorText(error)}`;
    }
  }

  /**
   * Stops linking; resolves when the chroot is released, after any copy in progress: its descriptors must not
   * be reused meanwhile.
   *
   * @param problem the answer to anyone who asks from now on
   */
  async close(problem: string): Promise<void> {
    const { chroot } = this;
    this.chroot = undefined;
    // The reason for a refusal is more useful than the fact that the build is over.
    if (this.record.kind !== "refused") this.problem = problem;
    await this.tail;
    await chroot?.close();
  }

  /**
   * Makes a path visible, after all that were requested before.
   * @param requireValid rejects when the path is not valid
   * @throws LinkError
   */
  link(path: StorePath, requireValid: () => Promise<void>): Promise<void> {
    if (this.problem !== undefined) return Promise.reject(new LinkError("not-linkable", this.problem));
    if (this.waiting >= this.config.maxQueue)
      return Promise.reject(new LinkError("limit", "too many requests wait for this sandbox"));
    this.waiting++;
    const done = this.tail.then(() => this.linkNow(path, requireValid)).finally(() => this.waiting--);
    this.tail = done.catch(() => undefined);
    return done;
  }

  private async linkNow(path: StorePath, requireValid: () => Promise<void>): Promise<void> {
    const { chroot } = this;
    if (!chroot) throw new LinkError("not-linkable", this.problem ?? "the sandbox is over");
    try {
      await requireValid();
      this.gains?.add(path);
      const turns = new Turns();
      await turns.during(() =>
        copyIntoChroot(storePathBase(path), chroot, {
          storeReal: this.config.storeReal,
          hardLinks: linksAreCheap(this.config.storeReal),
          budget: this.budget,
          turns,
          confirm: requireValid,
        }),
      );
    } catch (error) {
      if (chroot.gone)
        throw new LinkError("gone", "the chroot of this sandbox was removed: its build is over");
      if (error instanceof LinkError) throw error;
      throw new LinkError("io", `cannot link ${path}: ${errorText(error)}`);
    }
  }

  /**
   * Whether the build is over: its worker ended or released the outputs' locks, or (if these were never seen)
   * its chroot has been gone for the grace time. In doubt it is not over: a build that is settled too early
   * loses its references.
   */
  isOver(now: number): boolean {
    const { worker } = this.record;
    if (worker && hasEnded(worker)) return true;
    const reading = this.readLocks();
    if (reading === "held") this.locked = true;
    this.free = reading === "free" ? this.free + 1 : 0;
    if (!this.chrootGone()) this.goneSince = undefined;
    else this.goneSince ??= now;
    if (this.free < FREE_READINGS) return false;
    return this.locked || (this.goneSince !== undefined && now - this.goneSince >= this.config.endGrace);
  }

  /** Whether it is the sandbox of the build that runs in that chroot now. */
  livesIn(chroot: string): boolean {
    const { worker } = this.record;
    return this.record.chroot === chroot && !this.chrootGone() && (worker === null || !hasEnded(worker));
  }

  private readLocks(): LockReading {
    const { worker, outputs } = this.record;
    return worker
      ? readLocks(
          worker,
          Object.values(outputs).filter((path) => path !== ""),
        )
      : "free";
  }

  private chrootGone(): boolean {
    if (this.chroot) return this.chroot.gone;
    const outer = this.record.chroot?.split("/")[0];
    if (outer === undefined) return true;
    try {
      lstatSync(`${this.config.storeReal}/${outer}`);
      return false;
    } catch (error) {
      return errorCode(error) === "ENOENT";
    }
  }
}
