/**
 * Turns on the event loop that serves everybody. Long work is done in slices: after a few milliseconds it
 * waits for its next turn, and the loop goes round once between any two turns. So however many long requests
 * there are, short ones wait for only one slice. Sandboxes take turns with each other, whatever they are
 * doing.
 */
import type { Pace } from "../store/slices.ts";

/**
 * Far below the 50 ms for which anybody may hold the loop: garbage is also collected, and a slice finishes
 * what it began.
 */
const SLICE_MS = 5;

/** Those with somebody waiting, the next one first. */
const queue: Lane[] = [];
let scheduled = false;
let sliceEnds = 0;

/** One sandbox's place in the queue. */
export class Lane implements Pace {
  private readonly waiting: (() => void)[] = [];

  /** Also true for anyone who has had no turn yet: long work begins by waiting for one. */
  get due(): boolean {
    return performance.now() >= sliceEnds;
  }

  pause(): Promise<void> {
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      if (this.waiting.length === 1) queue.push(this);
      if (!scheduled) schedule();
    });
  }

  /** @returns whether somebody is still waiting */
  grant(): boolean {
    sliceEnds = performance.now() + SLICE_MS;
    this.waiting.shift()?.();
    return this.waiting.length > 0;
  }
}

/** The loop has handled everything that is ready before it gets here. */
function schedule(): void {
  scheduled = true;
  setImmediate(() => {
    scheduled = false;
    const next = queue.shift();
    if (next?.grant()) queue.push(next);
    if (queue.length > 0) schedule();
  });
}
