/** One reader of the feed, which may be slow or hostile: both what waits for it and what it may ask are limited. */
import type { WebSocket } from "ws";

/** A reader that has not yet taken this much is sent nothing more. Bytes. */
export const MOST_WAITING = 1024 * 1024;
/** Frames between two ticks; the page sends one per key press. */
const MOST_FRAMES = 200;
/** How long a reader that was told why it is being closed may take to close its side. */
const LINGER_MS = 1000;

export class FeedReader {
  /** The position in the chain up to which it was sent everything. */
  sent: number;
  /** Until then it is sent nothing. */
  greeted = false;
  /** What it asked for last, while that has not been answered. Its messages are not read meanwhile. */
  asked: string | undefined;
  private readonly socket: WebSocket;
  private frames = 0;
  private stalledSince: number | undefined;

  /** @param onMessage called for each message */
  constructor(socket: WebSocket, sent: number, onMessage: (reader: FeedReader, text: string) => void) {
    this.socket = socket;
    this.sent = sent;
    socket.on("error", () => socket.terminate());
    socket.on("message", (data) => {
      if (this.heard()) onMessage(this, String(data));
    });
    // Not answered by the library, which would keep pongs without end for one that does not read.
    socket.on("ping", (data) => {
      if (this.heard() && this.hasRoom) socket.pong(data);
    });
  }

  get waiting(): number {
    return this.socket.bufferedAmount;
  }

  get hasRoom(): boolean {
    return this.waiting < MOST_WAITING;
  }

  /** Keeps its request in place of the previous one. */
  ask(id: string): void {
    this.asked = id;
    this.socket.pause();
  }

  answered(): void {
    this.asked = undefined;
    this.socket.resume();
  }

  /** @param text of a message, as JSON */
  send(text: string): void {
    this.socket.send(text);
  }

  /** To be called regularly. @param longest how long it may take nothing, in milliseconds */
  tick(now: number, longest: number): void {
    this.frames = 0;
    if (this.hasRoom) this.stalledSince = undefined;
    else this.stalledSince ??= now;
    if (this.stalledSince !== undefined && now - this.stalledSince > longest) this.socket.terminate();
  }

  refuse(reason: string): void {
    this.socket.close(1008, reason);
    const timer = setTimeout(() => this.socket.terminate(), LINGER_MS).unref();
    this.socket.on("close", () => clearTimeout(timer));
  }

  terminate(): void {
    this.socket.terminate();
  }

  /** @returns false if the message is to be ignored */
  private heard(): boolean {
    if (this.socket.readyState !== this.socket.OPEN) return false;
    this.frames += 1;
    if (this.frames > MOST_FRAMES) this.socket.terminate();
    return this.frames <= MOST_FRAMES;
  }
}
