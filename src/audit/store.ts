/**
 * Records what the broker does. Appending is cheap and synchronous: records are written in batches, some 20
 * milliseconds later. Whatever is about to change upstream is committed first, by `appendCommitted`. A commit survives the
 * end of the process at any moment; a power loss only once it is `synced`, which is done off the main loop.
 *
 * When writing fails (disk full, I/O error) the store is unhealthy: it keeps what it has, up to a limit, tries again,
 * and refuses `appendCommitted`; its owner refuses requests meanwhile.
 */

import { closeSync, fdatasyncSync, openSync } from "node:fs";
import { open } from "node:fs/promises";
import { CheckpointThread } from "./checkpoint-thread.ts";
import { Coalescer } from "./coalesce.ts";
import { AuditError } from "./error.ts";
import { serviceRecord } from "./events.ts";
import { GroupSync } from "./group-sync.ts";
import { openLast, openNext } from "./open-segment.ts";
import { PendingRecords } from "./pending.ts";
import { type AuditRecord, boundRecord, type StoredRecord } from "./record.ts";
import { listSegments, makeAuditFolder, type SegmentFile, sealLeftovers, sealSegment } from "./segment.ts";
import { type ChainHead, type SegmentWriter, storedRecord } from "./segment-writer.ts";
import { nowMicroseconds } from "./time.ts";

export interface AuditStoreOptions {
  /** Records after which a segment is sealed and the next begun. */
  segmentRecords?: number;
  /** The most records that are written at once. */
  batchRecords?: number;
  /** How long a record may wait for others, in milliseconds. */
  batchMs?: number;
  /** How long repeats of a request are summed up, in milliseconds. */
  coalesceMs?: number;
  /** How long to wait before trying again after a failure, in milliseconds. */
  retryMs?: number;
  /** Records kept while they cannot be written, and their size in characters; more are counted as lost. */
  maxPending?: number;
  maxPendingSize?: number;
  /** Called with records that were written, in the order of the chain. */
  onWritten?: (records: readonly StoredRecord[]) => void;
  /** Called when writing begins to fail, with the reason, and when it works again, without one. */
  onHealth?: (failure: AuditError | undefined) => void;
}

/** Records with this many characters are written without waiting for others: writing them takes some milliseconds. */
const BATCH_SIZE = 128 * 1024;

/** Records after which the database is checkpointed. */
const CHECKPOINT_RECORDS = 500;

/** The longest that a commit may wait to be synced, in milliseconds. */
const SYNC_MS = 1000;

export class AuditStore {
  readonly folder: string;
  private readonly options: Required<Omit<AuditStoreOptions, "onWritten" | "onHealth">>;
  private readonly onWritten: AuditStoreOptions["onWritten"];
  private readonly onHealth: AuditStoreOptions["onHealth"];
  private readonly coalescer = new Coalescer();
  private writer: SegmentWriter;
  private readonly queue: PendingRecords;
  private lostRecords = 0;
  private lostUnreported = 0;
  private lastFailure: AuditError | undefined;
  private batchTimer: NodeJS.Timeout | undefined;
  private retryTimer: NodeJS.Timeout | undefined;
  private readonly sweepTimer: NodeJS.Timeout;
  private syncTimer: NodeJS.Timeout | undefined;
  private readonly syncs = new GroupSync(() => this.syncLog());
  /** Whose entry in the folder is on disk. */
  private syncedLog = "";
  private readonly checkpoints = new CheckpointThread();
  /** Records written since the last checkpoint began. */
  private sinceCheckpoint = 0;
  private closed = false;
  private sweeping = false;

  /**
   * Opens the audit in a folder, and creates it if it does not exist. Only one process at a time may do that.
   * @throws AuditError when it cannot be written or is of a later version.
   */
  constructor(folder: string, options: AuditStoreOptions = {}) {
    this.folder = folder;
    this.options = {
      segmentRecords: options.segmentRecords ?? 1_000_000,
      batchRecords: options.batchRecords ?? 250,
      batchMs: options.batchMs ?? 20,
      coalesceMs: options.coalesceMs ?? 1000,
      retryMs: options.retryMs ?? 500,
      maxPending: options.maxPending ?? 20_000,
      maxPendingSize: options.maxPendingSize ?? 16 * 1024 * 1024,
    };
    const { maxPending, maxPendingSize } = this.options;
    this.queue = new PendingRecords({ records: maxPending, size: maxPendingSize });
    this.onWritten = options.onWritten;
    this.onHealth = options.onHealth;
    makeAuditFolder(folder);
    try {
      this.writer = openLast(folder);
      sealLeftovers(this.sealedSegments);
    } catch (error) {
      if (error instanceof AuditError) throw error;
      const message = `Cannot open the audit in ${folder}: ${(error as Error).message}.`;
      throw new AuditError("write", message, { cause: error });
    }
    this.sweepTimer = setInterval(() => this.sweep(), this.options.coalesceMs).unref();
  }

  /** Why nothing can be recorded now; undefined if all is well. */
  get failure(): AuditError | undefined {
    return this.lastFailure;
  }

  get healthy(): boolean {
    return this.lastFailure === undefined;
  }

  /** The end of the chain as it is on disk. */
  get head(): ChainHead {
    return this.writer.head;
  }

  /** Records waiting to be written, including those that are being summed up. */
  get pending(): number {
    return this.queue.length + this.coalescer.size;
  }

  /** How long the oldest of them has waited to be written, in milliseconds. */
  get lagMs(): number {
    return this.queue.ageMs;
  }

  /** Records that could neither be written nor kept since the store was opened. */
  get lost(): number {
    return this.lostRecords;
  }

  /** The segment being written. */
  get liveSegment(): { readonly path: string; readonly created: number } {
    return { path: this.writer.path, created: this.writer.segment.created };
  }

  /** The sealed segments, oldest first. */
  get sealedSegments(): SegmentFile[] {
    return listSegments(this.folder).filter((segment) => segment.number < this.writer.segment.number);
  }

  /** Records something that has happened. Never throws. */
  append(record: AuditRecord): void {
    this.coalescer.add(boundRecord(record), this.keep);
    if (this.queue.length === 0 || this.lastFailure !== undefined) return;
    if (this.isBatchFull) this.writePending();
    else this.batchTimer ??= setTimeout(() => this.writePending(), this.options.batchMs);
  }

  /**
   * Commits a record, and all before it, before it returns: for what must not happen unrecorded. Returns its `seq`.
   * It survives the end of the process at any moment, and power loss about a second later; `synced` does not wait that long.
   * @throws AuditError when it cannot be committed; then it is not in the store.
   */
  appendCommitted(record: AuditRecord): number {
    if (this.closed) throw new AuditError("closed", "The audit is closed.");
    this.requireHealthy();
    if (this.queue.length >= this.options.batchRecords || this.lostUnreported > 0) this.writePending();
    this.requireHealthy();
    try {
      const { seq } = this.writeWithPending(boundRecord(record));
      this.syncTimer ??= setTimeout(() => void this.synced().catch(() => undefined), SYNC_MS).unref();
      return seq;
    } catch (error) {
      throw this.fail(error as Error);
    }
  }

  /** Writes everything that is held. Returns whether that succeeded. */
  flush(): boolean {
    for (const _ of this.coalescer.sweep(this.keep));
    this.writePending();
    return this.lastFailure === undefined;
  }

  /**
   * Resolves once everything that was committed before is on disk: it survives power loss. Many who wait share one sync.
   * @throws AuditError when it cannot be synced.
   */
  async synced(): Promise<void> {
    clearTimeout(this.syncTimer);
    this.syncTimer = undefined;
    try {
      await this.syncs.request();
    } catch (error) {
      throw this.fail(error as Error);
    }
  }

  /** As `synced`, before it returns: for what can be done on the main loop. @throws the database's error. */
  settle(): void {
    this.writer.settle();
  }

  /**
   * The head of the chain, once everything recorded up to it is on disk: a power loss cannot undo it, so an
   * anchor for it stays valid.
   * @throws AuditError when it cannot be synced.
   */
  async settledHead(): Promise<ChainHead> {
    this.flush();
    const { head } = this;
    await this.synced();
    return head;
  }

  /**
   * Continues in a new segment; does nothing if the current one is empty.
   *
   * @throws the system's or the database's error; the current one then stays in use.
   */
  rotate(): void {
    const finished = this.writer;
    if (finished.length === 0) return;
    // After a power loss there must be no records that follow on some that are lost. Sealing it may have to wait.
    syncLogNow(finished.path);
    this.writer = openNext(this.folder, finished.segment.number + 1, finished.head);
    const seal = (): void => sealSegment(finished.database, finished.path);
    const { busy } = this.checkpoints;
    if (busy) void busy.then(seal);
    else seal();
  }

  /** Writes everything that is held and closes. Returns whether everything was written. */
  close(): boolean {
    if (this.closed) return this.lastFailure === undefined;
    const complete = this.flush();
    this.closed = true;
    clearTimeout(this.batchTimer);
    clearTimeout(this.retryTimer);
    clearTimeout(this.syncTimer);
    clearInterval(this.sweepTimer);
    this.checkpoints.close();
    this.writer.database.close();
    return complete;
  }

  private requireHealthy(): void {
    if (this.lastFailure !== undefined) throw new AuditError("unhealthy", this.lastFailure.message);
  }

  private readonly keep = (record: AuditRecord): void => {
    if (!this.closed && this.queue.add(record)) return;
    this.lostRecords += 1;
    this.lostUnreported += 1;
  };

  /** A batch at a time: clients can make each of these records long. */
  private sweep(): void {
    if (this.sweeping) return;
    this.sweeping = true;
    const emissions = this.coalescer.sweep(this.keep);
    const emitBatch = (): void => {
      const writes = this.lastFailure === undefined && !this.closed;
      let done: boolean | undefined = false;
      while (!done && !(writes && this.isBatchFull)) done = emissions.next().done;
      if (writes) this.writePending();
      if (done || this.closed) this.sweeping = false;
      else setImmediate(emitBatch);
    };
    emitBatch();
  }

  private get isBatchFull(): boolean {
    return this.queue.length >= this.options.batchRecords || this.queue.size >= BATCH_SIZE;
  }

  /** Writes what is pending, a batch at a time, until all is written or one fails. */
  private writePending(): void {
    clearTimeout(this.batchTimer);
    this.batchTimer = undefined;
    try {
      while (this.queue.length > 0) {
        const batch = this.queue.first(this.options.batchRecords);
        this.write(batch);
        this.queue.drop(batch.length);
      }
      if (this.lostUnreported > 0) this.reportLost();
      this.recover();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  /** One transaction for both: most of what it takes to write a record is the commit. */
  private writeWithPending(record: AuditRecord): ChainHead {
    const pending = this.queue.first(this.options.batchRecords);
    const head = this.write([...pending, record]);
    this.queue.drop(pending.length);
    return head;
  }

  private reportLost(): void {
    const detail = { records: this.lostUnreported };
    this.write([serviceRecord("lost", nowMicroseconds(), detail, "They could not be written in time.")]);
    this.lostUnreported = 0;
  }

  /** Commits are in SQLite's log of writes; when it is sealed or closed, SQLite syncs them itself, and removes the log. */
  private async syncLog(): Promise<void> {
    const log = `${this.writer.path}-wal`;
    try {
      await syncFile(log);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      throw error;
    }
    if (log === this.syncedLog) return;
    await syncFile(this.folder);
    this.syncedLog = log;
  }

  private write(records: readonly AuditRecord[]): ChainHead {
    if (this.writer.length >= this.options.segmentRecords) this.rotate();
    const told = this.onWritten;
    const heads: ChainHead[] = [];
    const note = told === undefined ? undefined : (head: ChainHead) => void heads.push(head);
    this.writer.write(records, note);
    this.sinceCheckpoint += records.length;
    if (this.sinceCheckpoint >= CHECKPOINT_RECORDS && !this.checkpoints.busy) {
      this.sinceCheckpoint = 0;
      this.checkpoints.start(this.writer.path);
    }
    if (told !== undefined) {
      const stored = records.map((record, index) => storedRecord(record, heads[index]!));
      // Later, so that an error in there is not taken for a failure to write.
      queueMicrotask(() => told(stored));
    }
    return this.writer.head;
  }

  private fail(error: Error): AuditError {
    const message = `Cannot write the audit in ${this.folder}: ${error.message}. Requests are refused until it can be written.`;
    const failure = new AuditError("write", message, { cause: error });
    if (this.lastFailure === undefined) {
      // Once this record is written, writing works again; the record tells since when it did not.
      this.keep(serviceRecord("unwritable", nowMicroseconds(), {}, error.message));
      queueMicrotask(() => this.onHealth?.(failure));
    }
    this.lastFailure = failure;
    this.retryTimer ??= setTimeout(() => {
      this.retryTimer = undefined;
      this.writePending();
    }, this.options.retryMs).unref();
    return failure;
  }

  private recover(): void {
    if (this.lastFailure === undefined) return;
    this.lastFailure = undefined;
    queueMicrotask(() => this.onHealth?.(undefined));
  }
}

function syncLogNow(path: string): void {
  const file = openSync(`${path}-wal`, "r");
  try {
    fdatasyncSync(file);
  } finally {
    closeSync(file);
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path);
  try {
    await file.datasync();
  } finally {
    await file.close();
  }
}
