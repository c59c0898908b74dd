/** The rows of a list: the records that pass its filter, and which of them is selected. */
import type { RecordJson } from "../audit/json-line.ts";

const MOST_ROWS = 20_000;

export class RecordRows {
  /** Oldest first. */
  rows: RecordJson[] = [];
  /** The place in the chain of the row that is selected. */
  selected: number | undefined;
  /** How many rows were added since they were last set anew: by so many, what a reader looks at moves down. */
  added = 0;
  /** How often they were set anew: then the list begins at its top again. */
  resets = 0;
  /** How often a row was selected by key: then it is brought into view. */
  moves = 0;
  private readonly matches: (record: RecordJson) => boolean;

  constructor(matches: (record: RecordJson) => boolean) {
    this.matches = matches;
  }

  /** From the top of the list, where the newest is. */
  at(index: number): RecordJson | undefined {
    return this.rows[this.rows.length - 1 - index];
  }

  /** Where in the list the selected row is; -1 if none is, or it is not there. */
  get selectedIndex(): number {
    const index = this.rows.findIndex(({ seq }) => seq === this.selected);
    return index < 0 ? -1 : this.rows.length - 1 - index;
  }

  /** Takes new records, in their order. */
  add(records: readonly RecordJson[]): void {
    const fresh = records.filter(this.matches);
    this.rows.push(...fresh);
    this.added += fresh.length;
    if (this.rows.length > MOST_ROWS * 1.2) this.rows = this.rows.slice(-MOST_ROWS);
  }

  /** Begins anew, after the filter has changed. */
  set(records: readonly RecordJson[]): void {
    this.rows = records.filter(this.matches);
    this.added = 0;
    this.resets++;
  }

  /** Selects the row so many below the selected one, or the first. */
  move(step: number): void {
    const now = this.selectedIndex;
    const record = this.at(now < 0 ? 0 : Math.max(0, Math.min(this.rows.length - 1, now + step)));
    if (record === undefined) return;
    this.selected = record.seq;
    this.moves++;
  }

  /** Selects the newest row. */
  moveToTop(): void {
    this.selected = undefined;
    this.move(0);
  }
}
