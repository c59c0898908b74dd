/**
 * The memory that one client's request takes. Short requests pass without asking. One that grows longer waits, before
 * more of it is read, for as much as the longest request of its kind may take; so it never waits a second time while it
 * holds up others. Once it has arrived it keeps what it really takes.
 *
 * Nobody keeps for long what others wait for: a client that only ever sends half a request, or does not read its reply,
 * is cut off, and so is one whose request upstream does not get done with.
 */
import { MEDIUM_REQUEST, REQUEST_COST, UNCOUNTED } from "../policy/memory.ts";
import { EndOfStream } from "../protocol/byte-stream.ts";
import type { MemoryBudget } from "./memory-budget.ts";
import type { MemoryLine, Share } from "./memory-line.ts";
import { Refusal } from "./refusal.ts";

/** How long a request may hold memory that others wait for, in seconds. */
const PATIENCE_SECONDS = 20;

/** Of a path in a reply: a list of paths that the view holds anyway takes 16 bytes of memory for each. */
const REPLY_BYTES = 16 / REQUEST_COST;

export interface RequestMemoryOptions {
  /** Whom it counts for. */
  readonly owner: object;
  /** The longest request, with a text that comes as its body, in bytes. */
  readonly longest: number;
  /** Cuts off the client. */
  readonly cutOff: () => void;
}

export class RequestMemory {
  private readonly budget: MemoryBudget;
  private readonly options: RequestMemoryOptions;
  private share: Share | undefined;
  private line: MemoryLine | undefined;
  /** Bytes of the request that were read, before what is being read. */
  private kept = 0;
  /** Of what is being read. */
  private reading = 0;
  /** So long may the request become without asking. */
  private covered = UNCOUNTED;
  private timer: NodeJS.Timeout | undefined;
  private isGone = false;
  /** Ends a wait when the client leaves. */
  private waiting: AbortController | undefined;

  constructor(budget: MemoryBudget, options: RequestMemoryOptions) {
    this.budget = budget;
    this.options = options;
  }

  /**
   * To be called before so many bytes of a message or body are held.
   * @returns undefined if that is in order; otherwise what to wait for
   */
  reach(bytes: number): undefined | Promise<void> {
    this.reading = Math.max(this.reading, bytes);
    const length = this.kept + this.reading;
    return length <= this.covered ? undefined : this.enlarge(length);
  }

  /** As `reach`, for a reply that tells of so many paths. */
  reachReply(paths: number): undefined | Promise<void> {
    return this.reach(Math.min(paths * REPLY_BYTES, this.options.longest - this.kept));
  }

  /** What was read is kept, and more follows. */
  keep(): void {
    this.kept += this.reading;
    this.reading = 0;
  }

  /** Nothing more is kept of what the client sends: gives back what the request does not take. */
  arrived(): void {
    this.keep();
    // What comes in pieces that are passed on may be in memory as well.
    this.covered = this.kept + UNCOUNTED;
    this.share?.shrink(this.kept * REQUEST_COST);
  }

  /** The request is over. */
  release(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.kept = this.reading = 0;
    this.covered = UNCOUNTED;
    this.share?.release();
    this.share = this.line = undefined;
  }

  /** The client is gone: does not wait any more. */
  leave(): void {
    this.isGone = true;
    this.waiting?.abort(new EndOfStream());
  }

  private async enlarge(length: number): Promise<void> {
    const { owner, longest } = this.options;
    if (length > longest)
      throw new Refusal(
        `the request, with the text that follows it, is longer than ${longest} bytes (limits.request_bytes)`,
        { limit: "requestBytes", fatal: true },
      );
    const medium = length <= MEDIUM_REQUEST;
    const covered = medium ? Math.min(MEDIUM_REQUEST, longest) : longest;
    const line = medium ? this.budget.medium : this.budget.long;
    if (this.isGone) throw new EndOfStream();
    this.waiting ??= new AbortController();
    const share = await line.take(owner, covered * REQUEST_COST, this.waiting.signal);
    this.share?.release();
    this.share = share;
    this.line = line;
    this.covered = covered;
    this.timer ??= setTimeout(() => this.endPatience(), PATIENCE_SECONDS * 1000);
    this.timer.refresh();
  }

  private endPatience(): void {
    if (this.line && this.line.waiting > 0) this.options.cutOff();
    else this.timer?.refresh();
  }
}
