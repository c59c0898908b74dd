/**
 * Long work in slices. Work that untrusted parties can make long is written as a generator that yields after
 * a bounded piece of work; the caller decides whether others get a turn in between. `units` of work are bytes
 * looked at, or what takes about as long: a slice stays far below a millisecond.
 */

/** Work that yields between its slices, and returns its result. */
export type Slices<T> = Generator<undefined, T, undefined>;

/** Decides when to let others run, and does so. */
export interface Pace {
  /** Whether this turn has lasted long enough. */
  readonly due: boolean;
  /** Resolves at the beginning of the next turn. */
  pause(): Promise<void>;
}

/** For programs that serve nobody meanwhile. */
export const noPause: Pace = { due: false, pause: () => Promise.resolve() };

/** Does all of it at once. @throws what the work throws */
export function atOnce<T>(work: Slices<T>): T {
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
  }
}

/** Does it turn by turn; what one slice does is done at once. @throws what the work throws */
export function inSlices<T>(work: Slices<T>, pace: Pace): T | Promise<T> {
  const step = work.next();
  return step.done ? step.value : goOn(work, pace);
}

async function goOn<T>(work: Slices<T>, pace: Pace): Promise<T> {
  for (;;) {
    if (pace.due) await pace.pause();
    const step = work.next();
    if (step.done) return step.value;
  }
}

/** How many items of a list are processed between two checks of the pace. */
const ITEMS_A_SLICE = 64;

/** Goes over a list turn by turn; the items of a slice are dealt with at the same time. @throws what `deal` throws */
export async function mapInSlices<T, R>(
  items: Iterable<T>,
  pace: Pace,
  deal: (item: T) => R | Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  let slice: (R | Promise<R>)[] = [];
  for (const item of items) {
    slice.push(deal(item));
    if (slice.length < ITEMS_A_SLICE) continue;
    for (const result of await Promise.all(slice)) results.push(result);
    slice = [];
    if (pace.due) await pace.pause();
  }
  for (const result of await Promise.all(slice)) results.push(result);
  return results;
}

/** Gives a list item by item, turn by turn: a loop that only waits for what is there already would let nobody in. */
export async function* paced<T>(items: Iterable<T>, pace: Pace): AsyncGenerator<T, void, undefined> {
  let given = 0;
  for (const item of items) {
    if (++given % ITEMS_A_SLICE === 0 && pace.due) await pace.pause();
    yield item;
  }
}

/** Each item once. */
export async function distinct<T>(items: Iterable<T>, pace: Pace): Promise<Set<T>> {
  const seen = new Set<T>();
  let looked = 0;
  for (const item of items) {
    if (++looked % ITEMS_A_SLICE === 0 && pace.due) await pace.pause();
    seen.add(item);
  }
  return seen;
}
