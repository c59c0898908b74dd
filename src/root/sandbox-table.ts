/** The sandboxes that the linker knows: added when their folder appears, settled when their build is over. */
import { lstatSync } from "node:fs";
import { LinkError } from "../contract/link-error.ts";
import type { RootConfig, ServiceAccount } from "../contract/root-config.ts";
import { type SandboxId, sandboxesFolder, sandboxPlaces } from "../contract/runtime-tree.ts";
import { isObject, type ProcessIdentity, type SandboxRecord } from "../contract/sandbox-record.ts";
import { errorText, readTrusted, writeTrusted } from "../contract/trusted-file.ts";
import { ChrootError, type FolderIdentity } from "./chroot.ts";
import { removeLeftBehind } from "./left-behind.ts";
import { LinkedSandbox } from "./linked-sandbox.ts";
import { releasedFolder } from "./nix-state.ts";
import { hasEnded, isSameProcess } from "./process-tree.ts";
import { letGo, removeLetGo } from "./put-aside.ts";
import {
  listDurable,
  listSandboxes,
  readDurable,
  readSandbox,
  removeSandbox,
  removeUnfinishedRecords,
} from "./registration.ts";
import { isEnded, isPending } from "./sandbox-end.ts";
import type { Settle } from "./settlers.ts";
import { Turns } from "./turns.ts";

const MAX_LINKED = 4096;
/**
 * How long the service has, after the end, before the folder is removed; also the time between two attempts
 * to settle.
 */
const LINGER_MS = 60_000;

interface Entry {
  readonly sandbox: LinkedSandbox;
  /** When the folder is removed, or settling is tried again; `Infinity` during an attempt. */
  due: number | undefined;
  /** Later ones have more; those that a linker before this one may have known all have 0. */
  readonly order: number;
}

export class SandboxTable {
  private readonly config: RootConfig;
  private readonly service: ServiceAccount;
  private readonly settle: Settle;
  private readonly entries = new Map<SandboxId, Entry>();
  private settling: Promise<void> = Promise.resolve();
  /** Those that are being settled, or wait for it. */
  private readonly toSettle = new Map<SandboxId, Promise<void>>();
  private nextOrder = 0;
  /** For what a reboot or a crash left behind. */
  private nextLook = 0;
  private tending = false;
  private removing = false;
  /** More was put aside while the linker was removing. */
  private moreToRemove = false;
  private readonly turns = new Turns();

  constructor(config: RootConfig, service: ServiceAccount, settle: Settle) {
    this.config = config;
    this.service = service;
    this.settle = settle;
  }

  get all(): LinkedSandbox[] {
    return [...this.entries.values()].map((entry) => entry.sandbox);
  }

  /** Adds new folders, and forgets those that are gone. */
  scan(): void {
    let present: Set<SandboxId>;
    try {
      present = new Set(listSandboxes(this.config));
    } catch (error) {
      complain(`cannot list the sandboxes: ${errorText(error)}`);
      return;
    }
    for (const id of present) if (!this.find(id)) void this.removeRemains(id);
    this.nextOrder ||= 1;
    for (const [id, { sandbox }] of this.entries)
      if (!present.has(id)) {
        sandbox.close("the sandbox is over");
        this.entries.delete(id);
      }
  }

  /** A folder appears with its record in it: one without is what a linker before this one did not remove to its end. */
  private async removeRemains(id: SandboxId): Promise<void> {
    const { folder, record } = sandboxPlaces(this.config, id);
    try {
      if (!lstatSync(record, { throwIfNoEntry: false })) await letGo(folder);
    } catch (error) {
      complain(`cannot remove what is left of sandbox ${id}: ${errorText(error)}`);
    }
  }

  /** What a crash or a reboot left behind: builds that are over and were not settled, and have no folder any more. */
  private settleLeftovers(): void {
    let durable: SandboxId[] = [];
    try {
      removeUnfinishedRecords(this.config);
      durable = listDurable(this.config);
    } catch (error) {
      complain(`cannot list the roots: ${errorText(error)}`);
    }
    for (const id of durable) if (!this.entries.has(id) && this.isLeftOver(id)) void this.settleSoon(id);
  }

  private async removeLeftBehind(): Promise<void> {
    try {
      await removeLeftBehind(this.config);
    } catch (error) {
      complain(`cannot remove what sandboxes left behind: ${errorText(error)}`);
    }
    await this.removeLetGo();
  }

  private async removeLetGo(): Promise<void> {
    this.moreToRemove = true;
    if (this.removing) return;
    this.removing = true;
    const released = releasedFolder(this.config);
    try {
      while (this.moreToRemove) {
        this.moreToRemove = false;
        for (const folder of [this.config.gcrootsDir, sandboxesFolder(this.config), released])
          if (folder !== undefined) await removeLetGo(folder);
      }
    } catch (error) {
      complain(`cannot remove what was let go: ${errorText(error)}`);
    } finally {
      this.removing = false;
    }
  }

  /** A hook creates the durable record first: while its build runs, a sandbox without a folder is not a leftover. */
  private isLeftOver(id: SandboxId): boolean {
    try {
      const worker = readDurable(this.config, id)?.worker;
      return worker == null || hasEnded(worker);
    } catch (error) {
      complain(`the record of sandbox ${id} cannot be read: ${errorText(error)}`);
      return false;
    }
  }

  /** The sandbox of that name, added now if it was not seen yet. */
  find(id: SandboxId): LinkedSandbox | undefined {
    const known = this.entries.get(id);
    if (known) return known.sandbox;
    try {
      const record = readSandbox(this.config, id);
      if (!record) return undefined;
      const sandbox = new LinkedSandbox(this.config, record);
      this.entries.set(id, { sandbox, due: undefined, order: this.nextOrder });
      if (this.nextOrder > 0) this.nextOrder++;
      if (isEnded(this.config, id)) void sandbox.close("the sandbox is over");
      else if (record.kind === "ok") this.open(sandbox);
      return sandbox;
    } catch (error) {
      complain(`sandbox ${id} is not usable: ${errorText(error)}`);
      return undefined;
    }
  }

  /**
   * The sandbox of the build that runs in that chroot now.
   * @param worker of the process that is asked about: one that lives below another one is not part of the build
   */
  inChroot(chroot: string, worker: ProcessIdentity | null): LinkedSandbox | undefined {
    this.scan();
    return this.all.find(
      (sandbox) =>
        sandbox.livesIn(chroot) &&
        isSameProcess(sandbox.record.worker, worker) &&
        !isEnded(this.config, sandbox.record.id),
    );
  }

  /** Ends what is over. Called about every second; a call during another one does nothing. */
  async tend(): Promise<void> {
    if (this.tending) return;
    this.tending = true;
    try {
      await this.turns.during(() => this.tendNow(performance.now()));
    } finally {
      this.tending = false;
    }
  }

  private async tendNow(now: number): Promise<void> {
    if (now >= this.nextLook) {
      this.nextLook = now + LINGER_MS;
      this.settleLeftovers();
      void this.removeLeftBehind();
    }
    const newest = this.newestOfEachBuild();
    for (const [id, entry] of [...this.entries]) {
      if (this.turns.due) await this.turns.pause();
      if (!this.entries.has(id)) continue;
      try {
        this.tendOne(id, entry, now, newest);
      } catch (error) {
        complain(`cannot tell how sandbox ${id} is: ${errorText(error)}`);
      }
    }
  }

  private tendOne(id: SandboxId, entry: Entry, now: number, newest: ReadonlyMap<string, Entry>): void {
    const { sandbox } = entry;
    const waits = entry.due !== undefined && now < entry.due;
    const ended = isEnded(this.config, id);
    if (ended) void sandbox.close("the sandbox is over");
    if (ended && !isPending(this.config, id)) {
      if (entry.due === undefined) entry.due = now + LINGER_MS;
      else if (!waits) {
        entry.due = Number.POSITIVE_INFINITY;
        void this.remove(id);
      }
      return;
    }
    if (waits) return;
    const last = newest.get(buildKey(sandbox.record));
    const followed = last !== undefined && isLater(last, entry);
    if (!ended && !followed && !sandbox.isOver(now)) return;
    void sandbox.close("its build is over");
    entry.due = Number.POSITIVE_INFINITY;
    void this.settleSoon(id).then(() => {
      entry.due = performance.now() + LINGER_MS;
    });
  }

  /** A worker that builds a derivation again has finished the earlier build, even if it holds the locks once more. */
  private newestOfEachBuild(): Map<string, Entry> {
    const newest = new Map<string, Entry>();
    for (const entry of this.entries.values()) {
      const key = buildKey(entry.sandbox.record);
      const known = newest.get(key);
      if (!known || isLater(entry, known)) newest.set(key, entry);
    }
    return newest;
  }

  /** Removes the folder of a sandbox that has ended. @throws LinkError */
  async release(id: SandboxId): Promise<void> {
    if (!this.find(id)) throw new LinkError("unknown-sandbox", `there is no sandbox ${id}`);
    if (!isEnded(this.config, id)) throw new LinkError("not-ended", `the build of sandbox ${id} is not over`);
    if (isPending(this.config, id))
      throw new LinkError("not-ended", `the references of sandbox ${id} are not registered yet`);
    await this.remove(id);
  }

  close(): void {
    for (const { sandbox } of this.entries.values()) sandbox.close("the linker stops");
  }

  private open(sandbox: LinkedSandbox): void {
    const { linked } = sandboxPlaces(this.config, sandbox.record.id);
    let text: string;
    try {
      text = JSON.stringify({ format: 1, ok: true, chroot: sandbox.open(knownChroot(linked)) });
    } catch (error) {
      if (!(error instanceof ChrootError)) complain(`${errorText(error)}`);
      sandbox.problem = errorText(error);
      text = JSON.stringify({ format: 1, ok: false, error: sandbox.problem });
    }
    writeTrusted(linked, `${text}\n`, 0o640, this.service.gid);
  }

  /** One after the other: each may read gigabytes. */
  private settleSoon(id: SandboxId): Promise<void> {
    const known = this.toSettle.get(id);
    if (known) return known;
    this.settling = this.settling
      .then(() => this.settle(id))
      .then(({ outcome, error }) => {
        if (outcome === "pending") complain(`sandbox ${id} is not settled: ${error}`);
      })
      .catch((error: unknown) => {
        complain(`cannot settle sandbox ${id}: ${errorText(error)}`);
      })
      .finally(() => this.toSettle.delete(id));
    this.toSettle.set(id, this.settling);
    return this.settling;
  }

  private async remove(id: SandboxId): Promise<void> {
    const entry = this.entries.get(id);
    if (!entry) return;
    void entry.sandbox.close("the sandbox is over");
    try {
      await removeSandbox(this.config, entry.sandbox.record);
      this.entries.delete(id);
      void this.removeLetGo();
    } catch (error) {
      entry.due = performance.now() + LINGER_MS;
      complain(`cannot remove sandbox ${id}: ${errorText(error)}`);
    }
  }
}

/** The clock decides only where nothing else does: it may have been set back since, and one that is taken for an earlier build is settled. */
function isLater(one: Entry, other: Entry): boolean {
  const { created } = other.sandbox.record;
  return one.order > other.order || (one.order === other.order && one.sandbox.record.created > created);
}

/** What builds of one derivation by one worker, which run one after the other, have in common. */
function buildKey({ worker, drvPath }: SandboxRecord): string {
  return `${worker?.pid} ${worker?.startTime} ${worker?.boot} ${drvPath}`;
}

/** The chroot that was opened for this sandbox before, as `linked` has it. */
function knownChroot(path: string): FolderIdentity | undefined {
  const text = readTrusted(path, MAX_LINKED);
  const value: unknown = text === undefined ? undefined : JSON.parse(text);
  const chroot = isObject(value) ? value.chroot : undefined;
  if (!isObject(chroot)) return undefined;
  const { device, inode } = chroot;
  return typeof device === "string" && typeof inode === "string" ? { device, inode } : undefined;
}

function complain(message: string): void {
  process.stderr.write(`nix-broker linker: ${message}\n`);
}
