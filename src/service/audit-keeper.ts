/**
 * Maintains the audit while the service runs: anchors the head of its chain in the service's log, which the
 * journal keeps where the service cannot rewrite it, and removes what exceeds the age or size to be kept.
 */
import { formatAnchor } from "../audit/anchor.ts";
import { removeOldConnections } from "../audit/old-connections.ts";
import type { StoredRecord } from "../audit/record.ts";
import { applyRetention, isTooLarge } from "../audit/retention.ts";
import type { AuditStore } from "../audit/store.ts";
import type { AuditConfig } from "../config/config.ts";
import type { Log } from "./log.ts";

/** The most that could be cut off unnoticed, if nothing else anchors it: a minute's records. */
const ANCHOR_MS = 60_000;
/** Sandboxes often end several at a time. */
const SOON_MS = 1000;
const RETENTION_MS = 3_600_000;
/** A flood of requests must not fill the disk until the next hour. */
const SIZE_MS = 5000;
const DAY_MS = 86_400_000;

export class AuditKeeper {
  private readonly audit: AuditStore;
  private readonly config: AuditConfig;
  private readonly log: Log;
  /** Whatever the level of the log: without anchors, an end that was cut off would go unnoticed. */
  private readonly anchorLog: Log;
  private readonly timers: NodeJS.Timeout[];
  private anchored = 0;
  private anchoring: Promise<void> = Promise.resolve();
  private soon: NodeJS.Timeout | undefined;

  constructor(audit: AuditStore, config: AuditConfig, log: Log) {
    this.audit = audit;
    this.config = config;
    this.log = log;
    this.anchorLog = log.child({}, { level: "info" });
    this.timers = [
      setInterval(() => void this.anchor(), ANCHOR_MS).unref(),
      setInterval(() => this.retire(), RETENTION_MS).unref(),
      setInterval(() => this.retireIfTooLarge(), SIZE_MS).unref(),
    ];
    this.retire();
    void this.anchor();
  }

  /** Called with what was written: after a sandbox has ended, it anchors soon. */
  written(records: readonly StoredRecord[]): void {
    if (records.some(({ kind, op }) => kind === "sandbox" && op === "end"))
      this.soon ??= setTimeout(() => {
        this.soon = undefined;
        void this.anchor();
      }, SOON_MS).unref();
  }

  /** Records where the chain ends now; does nothing if that has already been done. Never throws. */
  private anchor(): Promise<void> {
    this.anchoring = this.anchoring.then(() => this.anchorNow());
    return this.anchoring;
  }

  private async anchorNow(): Promise<void> {
    if (this.audit.head.seq === this.anchored && this.audit.pending === 0) return;
    try {
      const head = await this.audit.settledHead();
      this.anchored = head.seq;
      this.anchorLog.info({ anchor: formatAnchor(head) }, "the audit's end");
    } catch (error) {
      this.log.error({ error: (error as Error).message }, "the audit cannot be anchored");
    }
  }

  /** To be called before the audit is closed, when nothing more will be recorded. */
  async stop(): Promise<void> {
    for (const timer of this.timers) clearInterval(timer);
    clearTimeout(this.soon);
    await this.anchor();
  }

  private retireIfTooLarge(): void {
    this.guarded(() => {
      if (this.audit.healthy && isTooLarge(this.audit, this.config.maxBytes)) this.retireNow();
    });
  }

  private retire(): void {
    this.guarded(() => this.retireNow());
  }

  private retireNow(): void {
    const { retentionDays, maxBytes } = this.config;
    const retired = applyRetention(this.audit, { maxAgeUs: retentionDays * DAY_MS * 1000, maxBytes });
    removeOldConnections(this.audit.folder, Date.now() - retentionDays * DAY_MS);
    if (retired.segments > 0) this.log.info(retired, "old records of the audit were removed");
  }

  /** The folder may be unreadable for a moment, for instance while there are no descriptors left. */
  private guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.log.error({ error: (error as Error).message }, "old records of the audit cannot be removed");
    }
  }
}
