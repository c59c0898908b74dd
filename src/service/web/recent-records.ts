/** The latest records, in memory for readers that follow: limited in number and in size. */
import { recordSize, type StoredRecord } from "../../audit/record.ts";

const MOST_RECORDS = 20_000;
/** Characters in all. Requests that name a thousand paths each would be a gigabyte. */
const MOST_SIZE = 16 * 1024 * 1024;

export class RecentRecords {
  private records: StoredRecord[] = [];
  private size = 0;

  /** Takes records in the order of the chain. */
  push(records: readonly StoredRecord[]): void {
    for (const record of records) {
      this.records.push(record);
      this.size += recordSize(record);
    }
    if (this.records.length > 2 * MOST_RECORDS || this.size > 2 * MOST_SIZE) this.trim();
  }

  /** Those after a position, oldest first; undefined if some of them are no longer here. */
  after(seq: number): Iterable<StoredRecord> | undefined {
    const first = this.records[0];
    return first === undefined || first.seq > seq + 1 ? undefined : this.from(seq + 1 - first.seq);
  }

  private *from(index: number): Generator<StoredRecord, void, undefined> {
    for (let at = index; at < this.records.length; at++) yield this.records[at]!;
  }

  /** Halves them, so that this is rarely needed. */
  private trim(): void {
    let size = 0;
    let at = this.records.length;
    while (at > 0 && this.records.length - at < MOST_RECORDS && size < MOST_SIZE) {
      at -= 1;
      size += recordSize(this.records[at]!);
    }
    this.records = this.records.slice(at);
    this.size = size;
  }
}

/** The first of the given records, within a maximum number and total size, but at least one. */
export function upTo(records: Iterable<StoredRecord>, most: number, mostSize: number): StoredRecord[] {
  const taken: StoredRecord[] = [];
  let size = 0;
  for (const record of records) {
    size += recordSize(record);
    if (taken.length > 0 && size > mostSize) break;
    taken.push(record);
    if (taken.length === most) break;
  }
  return taken;
}
