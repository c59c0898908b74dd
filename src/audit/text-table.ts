/**
 * The texts of a segment and their numbers, for the writer: recently used ones are remembered, others are
 * stored again.
 */

import type { DatabaseSync, StatementSync } from "node:sqlite";

/** How many recently used texts are remembered, and as many again from before that. */
const MAX_RECENT = 10_000;
/** Likewise of their characters: clients choose texts, and as JSON a control character is six. */
const MAX_RECENT_SIZE = 4 * 1024 * 1024;

/** A text of a segment. */
export interface StoredText {
  readonly id: number;
  /** The text as JSON, for the canonical text of records. */
  readonly json: string;
}

export class TextTable {
  private readonly insert: StatementSync;
  /** Those used since the older ones were set aside, and those used before; the latter are dropped next. */
  private recent = new Map<string, StoredText>();
  private older = new Map<string, StoredText>();
  /** Characters of the recent ones and of their JSON. */
  private recentSize = 0;
  /** Those numbered in the open transaction, which a rollback takes back. */
  private uncommitted: string[] = [];

  constructor(database: DatabaseSync) {
    this.insert = database.prepare("INSERT INTO text (text) VALUES (?)");
  }

  /** A text with its number, which is assigned now if none is remembered. */
  get(text: string): StoredText {
    return this.recent.get(text) ?? this.remember(text, this.older.get(text) ?? this.store(text));
  }

  committed(): void {
    if (this.uncommitted.length > 0) this.uncommitted = [];
  }

  rolledBack(): void {
    for (const text of this.uncommitted) {
      this.recent.delete(text);
      this.older.delete(text);
    }
    this.uncommitted = [];
  }

  private remember(text: string, stored: StoredText): StoredText {
    if (this.recent.size >= MAX_RECENT || this.recentSize >= MAX_RECENT_SIZE) {
      this.older = this.recent;
      this.recent = new Map();
      this.recentSize = 0;
    }
    this.recentSize += text.length + stored.json.length;
    this.recent.set(text, stored);
    return stored;
  }

  private store(text: string): StoredText {
    const { lastInsertRowid } = this.insert.run(text);
    this.uncommitted.push(text);
    return { id: Number(lastInsertRowid), json: JSON.stringify(text) };
  }
}
