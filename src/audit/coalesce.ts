/**
 * Repeated requests on a connection become one record with a count. The first is passed on at once; identical
 * ones that follow are held and summed up until something else arrives on that connection, or until the next
 * sweep.
 */

import type { AuditRecord } from "./record.ts";

interface Run {
  readonly record: AuditRecord;
  /** The sum of those that came after the first; undefined while there are none. */
  held: AuditRecord | undefined;
}

/** Takes the records that are to be written now. */
export type Emit = (record: AuditRecord) => void;

function sum(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined && b === undefined ? undefined : (a ?? 0) + (b ?? 0);
}

/** Changes, errors and records with details are never merged. */
function standsAlone(record: AuditRecord): boolean {
  return (
    record.kind !== "request" ||
    record.connection === undefined ||
    record.intent !== undefined ||
    record.upstreamError !== undefined ||
    record.detail !== undefined
  );
}

function isRepeat(a: AuditRecord, b: AuditRecord): boolean {
  return (
    a.op === b.op &&
    a.verdict === b.verdict &&
    a.reason === b.reason &&
    a.sandbox === b.sandbox &&
    haveSameItems(a.subjects ?? [], b.subjects ?? [])
  );
}

function haveSameItems(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((item, index) => item === b[index]);
}

export class Coalescer {
  /** By connection. */
  private readonly runs = new Map<number, Run>();
  private held = 0;

  /** Records that are held. */
  get size(): number {
    return this.held;
  }

  /** Emits the record after the one it follows, unless it repeats that one and is held. */
  add(record: AuditRecord, emit: Emit): void {
    const { connection } = record;
    const run = connection === undefined ? undefined : this.runs.get(connection);
    if (standsAlone(record)) {
      if (run !== undefined && connection !== undefined) this.end(connection, run, emit);
      emit(record);
      return;
    }
    if (run !== undefined && isRepeat(run.record, record)) {
      this.hold(run, record);
      return;
    }
    if (run !== undefined) this.release(run, emit);
    this.runs.set(connection!, { record, held: undefined });
    emit(record);
  }

  /**
   * Emits what is held, and forgets the connections whose last request was not repeated since the last sweep. Yields after
   * each: together they can be long.
   */
  *sweep(emit: Emit): Generator<undefined, void, undefined> {
    for (const [connection, run] of this.runs) {
      if (run.held === undefined) this.runs.delete(connection);
      else this.release(run, emit);
      yield;
    }
  }

  private hold(run: Run, record: AuditRecord): void {
    const { held } = run;
    if (held === undefined) {
      this.held += 1;
      run.held = record;
      return;
    }
    run.held = {
      ...held,
      count: (held.count ?? 1) + (record.count ?? 1),
      durationUs: sum(held.durationUs, record.durationUs),
      bytesIn: sum(held.bytesIn, record.bytesIn),
      bytesOut: sum(held.bytesOut, record.bytesOut),
    };
  }

  private release(run: Run, emit: Emit): void {
    if (run.held === undefined) return;
    this.held -= 1;
    emit(run.held);
    run.held = undefined;
  }

  private end(connection: number, run: Run, emit: Emit): void {
    this.runs.delete(connection);
    this.release(run, emit);
  }
}
