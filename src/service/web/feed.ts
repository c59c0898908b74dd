/**
 * What the page is sent, over one WebSocket per reader: records in the order of the chain, each once, however
 * slow the reader or however often it reconnects; and once a second the state of the service.
 *
 * The messages are those of `messages.ts`.
 */
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import type { WebSocket } from "ws";
import type { StoredRecord } from "../../audit/record.ts";
import type { SandboxSummary } from "../control/messages.ts";
import type { Log } from "../log.ts";
import { AuditThread } from "./audit-thread.ts";
import type { Found, Search } from "./audit-worker.ts";
import { FeedReader, MOST_WAITING } from "./feed-reader.ts";
import type { HelloMessage, RecordsMessage, SandboxMessage, StateMessage, WebState } from "./messages.ts";
import { pageRecord } from "./page-record.ts";
import { RecentRecords, upTo } from "./recent-records.ts";

export interface FeedSources {
  /** The folder of the audit. */
  readonly folder: string;
  readonly version: string;
  head(): number;
  state(): WebState;
  sandboxes(): readonly SandboxSummary[];
  readonly log: Log;
  /** How long a reader may take nothing of what waits for it, in milliseconds; default a minute. */
  readonly patienceMs?: number;
}

const BATCH = 1000;
/** Of a message, in characters: writing a longer one would block the service, and reading it the page. */
const MOST_OF_MESSAGE = 1024 * 1024;
/** How often readers are sent what is new, and states. */
const TICK_MS = 100;
const STATE_MS = 1000;
const HISTORY = 300;
/** What waits for all readers together: beyond this, none is sent more. Bytes. */
const MOST_WAITING_IN_ALL = 32 * MOST_WAITING;
const PATIENCE_MS = 60_000;
/** The reading thread rests three times as long as it worked, but no longer than this. */
const REST = 3;
const LONGEST_REST_MS = 2000;
const MOST_READERS = 16;
/** What a page starts with. */
const TAIL = 2000;
/** How far back builds and sandboxes are sent. Looking further back would take too long. */
const LOOK_BACK = 50_000;
const MOST_OF_SANDBOX = 5000;

export class WebFeed {
  private readonly sources: FeedSources;
  private readonly readers = new Set<FeedReader>();
  /** Those that need something out of the audit's files, each once, in the order in which they are served. */
  private readonly waiting = new Set<FeedReader>();
  private serving = false;
  private closed = false;
  private readonly thread = new AuditThread();
  private readonly recent = new RecentRecords();
  private readonly history: WebState[] = [];
  private readonly timers: NodeJS.Timeout[];

  constructor(sources: FeedSources) {
    this.sources = sources;
    this.timers = [
      setInterval(() => this.tick(), TICK_MS).unref(),
      setInterval(() => this.sendState(), STATE_MS).unref(),
    ];
  }

  /** Whether it has the maximum number of readers. */
  get full(): boolean {
    return this.readers.size >= MOST_READERS;
  }

  /** Takes records that were written, in the order of the chain. */
  push(records: readonly StoredRecord[]): void {
    this.recent.push(records);
  }

  /** @param after what the page already has: the position of its latest record, undefined for none */
  add(socket: WebSocket, after: number | undefined): void {
    const head = this.sources.head();
    // A position beyond the end belongs to another audit.
    const known = after !== undefined && after <= head ? after : undefined;
    const sent = known ?? Math.max(0, head - TAIL);
    const reader = new FeedReader(socket, sent, (asking, text) => this.asked(asking, text));
    socket.on("close", () => {
      this.readers.delete(reader);
      this.waiting.delete(reader);
    });
    this.readers.add(reader);
    if (known !== undefined) this.greet(reader, true, "[]");
    else this.enqueue(reader);
  }

  close(): void {
    this.closed = true;
    for (const timer of this.timers) clearInterval(timer);
    for (const reader of this.readers) reader.terminate();
    this.thread.close();
  }

  private asked(reader: FeedReader, text: string): void {
    const id = sandboxAsked(text);
    if (id === undefined) {
      reader.refuse("this request is not known here");
      return;
    }
    reader.ask(id);
    this.enqueue(reader);
  }

  private greet(reader: FeedReader, resumed: boolean, before: string): void {
    const { version } = this.sources;
    const hello = { type: "hello", version, resumed, history: this.history } as const;
    reader.send(withJson(hello satisfies Omit<HelloMessage, "before">, "before", before));
    reader.send(this.stateMessage(this.sources.state()));
    reader.greeted = true;
    this.sendRecords([reader]);
  }

  private enqueue(reader: FeedReader): void {
    this.waiting.add(reader);
    void this.serveWaiting();
  }

  /** One at a time, with pauses, however many ask, and however often. */
  private async serveWaiting(): Promise<void> {
    if (this.serving) return;
    this.serving = true;
    try {
      for (let reader = this.nextWaiting(); reader !== undefined; reader = this.nextWaiting()) {
        this.waiting.delete(reader);
        const started = performance.now();
        await this.serve(reader);
        const rest = REST * (performance.now() - started);
        await sleep(Math.min(LONGEST_REST_MS, rest), undefined, { ref: false });
      }
    } finally {
      this.serving = false;
    }
  }

  /** The first that has room for an answer; the others are looked at again at the next tick. */
  private nextWaiting(): FeedReader | undefined {
    if (this.closed || this.isCongested) return undefined;
    return [...this.waiting].find((reader) => reader.hasRoom);
  }

  private async serve(reader: FeedReader): Promise<void> {
    const { asked, sent } = reader;
    if (!reader.greeted) {
      this.greet(reader, false, (await this.find(before(sent))).records);
      // It may have asked before: it is not read from until it is answered.
      if (reader.asked !== undefined) this.waiting.add(reader);
    } else if (asked !== undefined) {
      const { records } = await this.find([ofSandbox(asked)]);
      const answer = { type: "sandbox", id: asked } as const;
      reader.send(withJson(answer satisfies Omit<SandboxMessage, "records">, "records", records));
      reader.answered();
    } else {
      const { records, last } = await this.find([following(sent)]);
      if (last === undefined) return;
      const message = { type: "records" } as const;
      reader.send(withJson(message satisfies Omit<RecordsMessage, "records">, "records", records));
      reader.sent = last;
    }
  }

  /** Nothing when the audit cannot be read now. */
  private async find(searches: readonly Search[]): Promise<Found> {
    const started = performance.now();
    try {
      return await this.thread.ask({ folder: this.sources.folder, searches });
    } catch (error) {
      if (!this.closed)
        this.sources.log.error({ error: (error as Error).message }, "the page cannot read the audit");
      return { records: "[]", last: undefined };
    } finally {
      this.sources.log.debug({ ms: performance.now() - started }, "the page asked for records");
    }
  }

  private get isCongested(): boolean {
    let waiting = 0;
    for (const reader of this.readers) waiting += reader.waiting;
    return waiting > MOST_WAITING_IN_ALL;
  }

  private tick(): void {
    const now = performance.now();
    for (const reader of this.readers) reader.tick(now, this.sources.patienceMs ?? PATIENCE_MS);
    this.sendRecords(this.readers);
    void this.serveWaiting();
  }

  /** Sends each reader the next batch it lacks: from memory if it is there, otherwise it waits for the thread. */
  private sendRecords(readers: Iterable<FeedReader>): void {
    const head = this.sources.head();
    if (this.isCongested) return;
    // Most of them are at the same position.
    const batches = new Map<number, { readonly text: string; readonly last: number } | undefined>();
    for (const reader of readers) {
      if (!reader.greeted || reader.sent >= head || !reader.hasRoom || this.waiting.has(reader)) continue;
      if (!batches.has(reader.sent)) batches.set(reader.sent, this.batchAfter(reader.sent));
      const batch = batches.get(reader.sent);
      if (batch === undefined) this.waiting.add(reader);
      else {
        reader.send(batch.text);
        reader.sent = batch.last;
      }
    }
  }

  private batchAfter(seq: number): { readonly text: string; readonly last: number } | undefined {
    const recent = this.recent.after(seq);
    const records = recent && upTo(recent, BATCH, MOST_OF_MESSAGE);
    const last = records?.at(-1)?.seq;
    if (records === undefined || last === undefined) return undefined;
    const message = { type: "records", records: records.map(pageRecord) } satisfies RecordsMessage;
    return { text: JSON.stringify(message), last };
  }

  private sendState(): void {
    const state = this.sources.state();
    this.history.push(state);
    if (this.history.length > HISTORY) this.history.shift();
    if (this.readers.size === 0 || this.isCongested) return;
    const text = this.stateMessage(state);
    for (const reader of this.readers) if (reader.greeted && reader.hasRoom) reader.send(text);
  }

  private stateMessage(state: WebState): string {
    const message = { type: "state", state, sandboxes: this.sources.sandboxes() } satisfies StateMessage;
    return JSON.stringify(message);
  }
}

/** The text of a message with a field whose value is JSON already, written by the thread that reads the audit. */
function withJson(message: object, field: string, json: string): string {
  return `${JSON.stringify(message).slice(0, -1)},"${field}":${json}}`;
}

/**
 * What a page that starts at a position needs to know: the latest denials, sandboxes and builds up to there,
 * and what has begun but not ended.
 */
function before(seq: number): Search[] {
  const range = { beforeSeq: seq + 1, afterSeq: Math.max(0, seq - LOOK_BACK) };
  const bounds = { most: TAIL, mostSize: MOST_OF_MESSAGE };
  return [
    { filter: { ...range, kinds: ["sandbox", "build", "intent"] }, ...bounds },
    { filter: { ...range, verdict: "deny" }, ...bounds },
  ];
}

function ofSandbox(id: string): Search {
  return {
    filter: { sandbox: id, completedIntents: true },
    most: MOST_OF_SANDBOX,
    mostSize: 4 * MOST_OF_MESSAGE,
  };
}

function following(seq: number): Search {
  return {
    filter: { afterSeq: seq, order: "oldest", completedIntents: true },
    most: BATCH,
    mostSize: MOST_OF_MESSAGE,
  };
}

/** Those of named jails have the name before them. */
const SANDBOX_ID = /^(?:[a-z][a-z0-9-]{0,31}\.)?[a-z0-9]{32}$/;

function sandboxAsked(text: string): string | undefined {
  let asked: unknown;
  try {
    asked = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof asked !== "object" || asked === null || !("type" in asked) || !("id" in asked)) return undefined;
  const { type, id } = asked;
  return type === "sandbox" && typeof id === "string" && SANDBOX_ID.test(id) ? id : undefined;
}
