/**
 * Reads the audit for the page in its own thread: searching millions of records, and converting the results
 * to JSON, would block the service.
 */
import { parentPort } from "node:worker_threads";
import { type AuditFilter, AuditReader } from "../../audit/query.ts";
import type { StoredRecord } from "../../audit/record.ts";
import { pageRecord } from "./page-record.ts";
import { upTo } from "./recent-records.ts";

/** A search, and how much of what it finds is wanted: records, and characters. */
export interface Search {
  readonly filter: AuditFilter;
  readonly most: number;
  readonly mostSize: number;
}

export interface Question {
  readonly folder: string;
  /** Their results are merged, in the order of the chain. */
  readonly searches: readonly Search[];
}

export interface Found {
  /** A JSON array. */
  readonly records: string;
  /** The place of the last one; undefined if there is none. */
  readonly last: number | undefined;
}

export type Answer = Found | { readonly error: string };

function find({ folder, searches }: Question): Found {
  // Left open, it would keep files from being sealed, and removed ones on the disk.
  const audit = new AuditReader(folder);
  try {
    const found = new Map<number, StoredRecord>();
    for (const { filter, most, mostSize } of searches)
      for (const record of upTo(audit.iterate(filter), most, mostSize)) found.set(record.seq, record);
    const records = [...found.values()].sort((a, b) => a.seq - b.seq);
    return { records: JSON.stringify(records.map(pageRecord)), last: records.at(-1)?.seq };
  } finally {
    audit.close();
  }
}

function answer(question: Question): Answer {
  try {
    return find(question);
  } catch (error) {
    return { error: (error as Error).message };
  }
}

parentPort?.on("message", (question: Question) => parentPort?.postMessage(answer(question)));
