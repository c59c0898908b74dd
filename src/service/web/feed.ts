/**
 * What the page is told, over one WebSocket a reader: records in the order of the chain, each once, however slow the reader
 * or how often it comes back; and once a second how the service is.
 *
 * Messages are JSON. From the service: `hello`, `records`, `state`, `sandbox`. From the page: `sandbox`, with an id.
 */
import { performance } from "node:perf_hooks";
import type { WebSocket } from "ws";
import type { RecordJson } from "../../audit/json-line.ts";
import { AuditReader } from "../../audit/query.ts";
import type { StoredRecord } from "../../audit/record.ts";
import type { SandboxSummary } from "../control/messages.ts";
import type { Log } from "../log.ts";
import { pageRecord } from "./page-record.ts";
import { RecentRecords, upTo } from "./recent-records.ts";

/** How the service is now. Counts are since its start. */
export interface WebState {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly requests: { readonly forward: number; readonly answer: number; readonly deny: number };
  readonly builds: { readonly running: number; readonly succeeded: number; readonly failed: number };
  readonly connections: number;
  readonly pool: number;
  readonly linker: number;
  readonly audit: { readonly head: number; readonly lagMs: number; readonly error: string | null };
}

export interface FeedSources {
  /** The folder of the audit. */
  readonly folder: string;
  readonly version: string;
  head(): number;
  state(): WebState;
  sandboxes(): readonly SandboxSummary[];
  readonly log: Log;
}

const BATCH = 1000;
/** Of a message, in characters: making it holds up the service, and reading it the page. */
const MOST_OF_MESSAGE = 1024 * 1024;
/** How often readers are sent what is new, and states. */
const TICK_MS = 100;
const STATE_MS = 1000;
const HISTORY = 300;
/** A reader that has not taken so much yet is sent no more. */
const MOST_WAITING = 1024 * 1024;
const MOST_READERS = 16;
/** What a page starts with. */
const TAIL = 2000;
/** How far back it is told of builds and sandboxes. Looking further would hold up the service. */
const LOOK_BACK = 50_000;
const MOST_OF_SANDBOX = 5000;

interface Reader {
  readonly socket: WebSocket;
  /** The place in the chain up to which it was sent all. */
  sent: number;
}

export class WebFeed {
  private readonly sources: FeedSources;
  private readonly readers = new Set<Reader>();
  private readonly recent = new RecentRecords();
  private readonly history: WebState[] = [];
  private readonly timers: NodeJS.Timeout[];

  constructor(sources: FeedSources) {
    this.sources = sources;
    this.timers = [
      setInterval(() => this.sendRecords(), TICK_MS).unref(),
      setInterval(() => this.sendState(), STATE_MS).unref(),
    ];
  }

  /** Takes records that were written, in the order of the chain. */
  push(records: readonly StoredRecord[]): void {
    this.recent.push(records);
  }

  /** @param after what the page has already: the place of its newest record, undefined for none */
  add(socket: WebSocket, after: number | undefined): void {
    if (this.readers.size >= MOST_READERS) {
      socket.close(1013, "too many pages are open");
      return;
    }
    const head = this.sources.head();
    // A place beyond the end is that of another audit.
    const known = after !== undefined && after <= head ? after : undefined;
    const reader: Reader = { socket, sent: known ?? Math.max(0, head - TAIL) };
    socket.on("close", () => this.readers.delete(reader));
    socket.on("error", () => socket.terminate());
    socket.on("message", (data) => this.asked(reader, String(data)));
    this.send(reader, {
      type: "hello",
      version: this.sources.version,
      resumed: known !== undefined,
      history: this.history,
      before: known === undefined ? this.before(reader.sent) : [],
    });
    this.send(reader, this.stateMessage());
    this.readers.add(reader);
    this.sendTo(reader);
  }

  close(): void {
    for (const timer of this.timers) clearInterval(timer);
    for (const { socket } of this.readers) socket.terminate();
  }

  private asked(reader: Reader, text: string): void {
    const id = sandboxAsked(text);
    if (id === undefined) {
      reader.socket.close(1008, "this is nothing that is answered here");
      return;
    }
    const started = performance.now();
    const records = this.query((audit) =>
      upTo(
        audit.iterate({ sandbox: id, completedIntents: true }),
        MOST_OF_SANDBOX,
        4 * MOST_OF_MESSAGE,
      ).reverse(),
    );
    this.sources.log.debug({ sandbox: id, ms: performance.now() - started }, "the page asked for a sandbox");
    this.send(reader, { type: "sandbox", id, records: records.map(pageRecord) });
  }

  /**
   * What a page needs to know that starts at a place: the newest denials, sandboxes and builds up to there, and what was
   * begun and has not ended.
   */
  private before(seq: number): RecordJson[] {
    const range = { beforeSeq: seq + 1, afterSeq: Math.max(0, seq - LOOK_BACK) };
    const found = this.query((audit) => [
      ...upTo(audit.iterate({ ...range, kinds: ["sandbox", "build", "intent"] }), TAIL, MOST_OF_MESSAGE),
      ...upTo(audit.iterate({ ...range, verdict: "deny" }), TAIL, MOST_OF_MESSAGE),
    ]);
    return found.sort((a, b) => a.seq - b.seq).map(pageRecord);
  }

  private sendRecords(): void {
    for (const reader of this.readers) this.sendTo(reader);
  }

  private sendTo(reader: Reader): void {
    const head = this.sources.head();
    while (reader.sent < head && reader.socket.bufferedAmount < MOST_WAITING) {
      const records = this.after(reader.sent);
      const last = records.at(-1);
      if (last === undefined) return;
      this.send(reader, { type: "records", records: records.map(pageRecord) });
      reader.sent = last.seq;
    }
  }

  /** The next records after a place, from memory if they are there, else out of the store. */
  private after(seq: number): readonly StoredRecord[] {
    const recent = this.recent.after(seq);
    if (recent !== undefined) return upTo(recent, BATCH, MOST_OF_MESSAGE);
    return this.query((audit) =>
      upTo(audit.iterate({ afterSeq: seq, order: "oldest", completedIntents: true }), BATCH, MOST_OF_MESSAGE),
    );
  }

  /** Nothing when the audit cannot be read now. */
  private query(read: (audit: AuditReader) => StoredRecord[]): StoredRecord[] {
    let audit: AuditReader | undefined;
    try {
      audit = new AuditReader(this.sources.folder);
      return read(audit);
    } catch (error) {
      this.sources.log.error({ error: (error as Error).message }, "the page cannot read the audit");
      return [];
    } finally {
      // Left open, it would keep files from being sealed, and removed ones on the disk.
      audit?.close();
    }
  }

  private sendState(): void {
    const state = this.sources.state();
    this.history.push(state);
    if (this.history.length > HISTORY) this.history.shift();
    if (this.readers.size === 0) return;
    const message = { ...this.stateMessage(), state };
    for (const reader of this.readers)
      if (reader.socket.bufferedAmount < MOST_WAITING) this.send(reader, message);
  }

  private stateMessage(): object {
    return { type: "state", state: this.sources.state(), sandboxes: this.sources.sandboxes() };
  }

  private send({ socket }: Reader, message: object): void {
    socket.send(JSON.stringify(message));
  }
}

function sandboxAsked(text: string): string | undefined {
  let asked: unknown;
  try {
    asked = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof asked !== "object" || asked === null || !("type" in asked) || !("id" in asked)) return undefined;
  const { type, id } = asked;
  return type === "sandbox" && typeof id === "string" && /^[a-z0-9]{32}$/.test(id) ? id : undefined;
}
