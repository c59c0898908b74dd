/** One reader of the feed, who may be slow, or hostile: what waits for it is bounded, and what it may ask is too. */
import type { WebSocket } from "ws";

/** A reader that has not taken so much yet is sent no more. Bytes. */
export const MOST_WAITING = 1024 * 1024;
/** Frames between two ticks; the page sends one a key press. */
const MOST_FRAMES = 200;
/** How long a reader that is told why it is closed may take to close its side. */
const LINGER_MS = 1000;

export class FeedReader {
  /** The place in the chain up to which it was sent all. */
  sent: number;
  /** Until then it is sent nothing. */
  greeted = false;
  /** What it asked for last and was not answered yet. It is not listened to meanwhile. */
  asked: string | undefined;
  private readonly socket: WebSocket;
  private frames = 0;
  private stalledSince: number | undefined;

  /** @param onMessage told of each message */
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

  /** Keeps what it asks, instead of what it asked before. */
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

  /** To be called now and then. @param longest how long it may take nothing, in milliseconds */
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

  /** @returns false when it is not to be heeded */
  private heard(): boolean {
    if (this.socket.readyState !== this.socket.OPEN) return false;
    this.frames += 1;
    if (this.frames > MOST_FRAMES) this.socket.terminate();
    return this.frames <= MOST_FRAMES;
  }
}
