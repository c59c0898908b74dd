/**
 * Turns on the one loop that serves everybody. Long work is done in slices: when one has lasted a few milliseconds it waits for
 * its next turn, and the loop goes round once between any two turns. So however many requests are long, those that are
 * short wait for one slice. Sandboxes take turns with each other, whatever they have under way.
 */
import type { Pace } from "../store/slices.ts";

/** Far below the 50 ms that nobody may hold the loop for: garbage is collected too, and what a slice began is ended. */
const SLICE_MS = 5;

/** Those with somebody who waits, the next one first. */
const queue: Lane[] = [];
let scheduled = false;
let sliceEnds = 0;

/** One sandbox's place in the queue. */
export class Lane implements Pace {
  private readonly waiting: (() => void)[] = [];

  /** True for whoever has had no turn, too: long work begins with waiting for one. */
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

  /** @returns whether somebody waits still */
  grant(): boolean {
    sliceEnds = performance.now() + SLICE_MS;
    this.waiting.shift()?.();
    return this.waiting.length > 0;
  }
}

/** The loop has looked at all that is ready before it comes to this. */
function schedule(): void {
  scheduled = true;
  setImmediate(() => {
    scheduled = false;
    const next = queue.shift();
    if (next?.grant()) queue.push(next);
    if (queue.length > 0) schedule();
  });
}
