/** Taking turns on the event loop: long work is done in slices, so that one huge path stalls nobody. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Pace } from "../store/slices.ts";

/** How long all workers together may occupy the event loop before others run. Milliseconds. */
const SLICE_MS = 4;

let working = 0;

/** The turns of one piece of work. */
export class Turns implements Pace {
  private end = 0;

  /** Runs the work; the others' slices are shorter meanwhile. */
  async during<T>(work: () => Promise<T>): Promise<T> {
    working++;
    this.end = performance.now() + SLICE_MS / working;
    try {
      return await work();
    } finally {
      working--;
    }
  }

  /** Whether the slice is used up, and others are to run. */
  get due(): boolean {
    return performance.now() > this.end;
  }

  /** Lets the others run. */
  async pause(): Promise<void> {
    await nextTurn();
    this.end = performance.now() + SLICE_MS / working;
  }
}
