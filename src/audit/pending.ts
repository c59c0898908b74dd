/**
 * Records waiting to be written, limited in number and in size: the record of one large request can be as
 * long as thousands of others.
 */

import { type AuditRecord, recordSize } from "./record.ts";

export interface PendingLimits {
  readonly records: number;
  /** Characters in all, see `recordSize`. */
  readonly size: number;
}

export class PendingRecords {
  private readonly limits: PendingLimits;
  private records: AuditRecord[] = [];
  /** Of each of them, in the same order. */
  private sizes: number[] = [];
  private total = 0;
  /** When the first of them came, by a clock that nobody sets. Milliseconds. */
  private since = 0;

  constructor(limits: PendingLimits) {
    this.limits = limits;
  }

  get length(): number {
    return this.records.length;
  }

  get size(): number {
    return this.total;
  }

  /** How long they have waited, in milliseconds. */
  get ageMs(): number {
    return this.records.length === 0 ? 0 : performance.now() - this.since;
  }

  /** Returns false, and does not take it, when there is no room. */
  add(record: AuditRecord): boolean {
    const size = recordSize(record);
    if (this.records.length >= this.limits.records || this.total + size > this.limits.size) return false;
    if (this.records.length === 0) this.since = performance.now();
    this.records.push(record);
    this.sizes.push(size);
    this.total += size;
    return true;
  }

  /** The oldest ones, at most this many. */
  first(count: number): readonly AuditRecord[] {
    return this.records.slice(0, count);
  }

  /** Forgets this many of the oldest. */
  drop(count: number): void {
    for (const size of this.sizes.slice(0, count)) this.total -= size;
    this.records = this.records.slice(count);
    this.sizes = this.sizes.slice(count);
  }
}
