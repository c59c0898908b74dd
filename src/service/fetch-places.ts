/**
 * Who may fetch now. There are few places, since each is a process, and a server can make a download last as long as the request
 * may. So whoever has the fewest gets the next one; and while somebody waits, a place can be taken away again: from who has more
 * than the one who waits would have, and from downloads that are slow, or last long. While nobody waits, none is.
 */
import type { FetchPlace } from "../sandbox/fetchers.ts";

/** Each takes about 60 MiB. */
const AT_ONCE = 8;
const AT_ONCE_OF_ONE = 4;
/** How often is looked whether a place has to be taken away, while somebody waits. */
const LOOK_MS = 5000;
/** So long everybody keeps a place. */
const LEAST_MS = 60_000;
/** What is slower over such a time is slow. */
const WINDOW_MS = 60_000;
const SLOW_BYTES_PER_SECOND = 64 * 1024;
/** What has lasted longer is long, however fast it is. */
const LONG_MS = 15 * 60_000;

/** The right to run one fetcher. */
export interface Place extends FetchPlace {
  /** To be called in any case, once. */
  leave(): void;
}

interface Waiter {
  give(): void;
}

interface Owner {
  running: number;
  /** The first to come first. */
  readonly waiting: Waiter[];
}

export class FetchPlaces {
  private running = 0;
  /** Those that have any, or wait for some; who has waited longest for a turn comes first. */
  private readonly owners = new Map<object, Owner>();
  private readonly held = new Set<HeldPlace>();
  private timer: NodeJS.Timeout | undefined;

  /**
   * @param owner whom it is for
   * @param unwanted ends the waiting
   * @param displaced called when the place is taken away: it is to be left soon
   * @throws the reason of `unwanted`
   */
  async take(owner: object, unwanted: AbortSignal, displaced: () => void): Promise<Place> {
    unwanted.throwIfAborted();
    const { waiting } = this.owner(owner);
    await new Promise<void>((resolve, reject) => {
      const waiter = {
        give(): void {
          unwanted.removeEventListener("abort", giveUp);
          resolve();
        },
      };
      const giveUp = (): void => {
        waiting.splice(waiting.indexOf(waiter), 1);
        this.changed(owner);
        reject(unwanted.reason);
      };
      unwanted.addEventListener("abort", giveUp);
      waiting.push(waiter);
      this.changed(owner);
    });
    const place = new HeldPlace(owner, displaced, () => this.leave(place));
    this.held.add(place);
    return place;
  }

  private leave(place: HeldPlace): void {
    if (!this.held.delete(place)) return;
    this.running--;
    this.owner(place.owner).running--;
    this.changed(place.owner);
  }

  /** Somebody came or went: gives places, and looks after those who have to wait. */
  private changed(owner: object): void {
    for (let next = this.neediest(); next && this.running < AT_ONCE; next = this.neediest()) {
      const [who, state] = next;
      this.owners.delete(who);
      this.owners.set(who, state);
      this.running++;
      state.running++;
      state.waiting.shift()?.give();
    }
    const { running, waiting } = this.owner(owner);
    if (running === 0 && waiting.length === 0) this.owners.delete(owner);
    if (this.neediest()) this.timer ??= setInterval(() => this.look(), LOOK_MS).unref();
    else {
      clearInterval(this.timer);
      this.timer = undefined;
    }
  }

  /** Who waits and has the fewest places. */
  private neediest(): readonly [object, Owner] | undefined {
    let found: readonly [object, Owner] | undefined;
    for (const entry of this.owners) {
      const [, { running, waiting }] = entry;
      if (waiting.length > 0 && running < AT_ONCE_OF_ONE && running < (found?.[1].running ?? AT_ONCE))
        found = entry;
    }
    return found;
  }

  private look(): void {
    const needy = this.neediest()?.[1];
    // Those that were told to leave are about to.
    if (!needy || [...this.held].some(({ displaced }) => displaced)) return;
    const now = performance.now();
    let slowest: HeldPlace | undefined;
    for (const place of this.held)
      if (this.mayTake(place, needy, now) && this.comesBefore(place, slowest, now)) slowest = place;
    slowest?.displace();
  }

  private mayTake(place: HeldPlace, needy: Owner, now: number): boolean {
    const age = now - place.since;
    const more = this.owner(place.owner).running - needy.running;
    if (place.settled || more < 1 || age < LEAST_MS) return false;
    return more > 1 || place.speed(now) < SLOW_BYTES_PER_SECOND || age >= LONG_MS;
  }

  private comesBefore(place: HeldPlace, other: HeldPlace | undefined, now: number): boolean {
    if (!other) return true;
    const more = this.owner(place.owner).running - this.owner(other.owner).running;
    return more > 0 || (more === 0 && place.speed(now) < other.speed(now));
  }

  private owner(owner: object): Owner {
    const known = this.owners.get(owner) ?? { running: 0, waiting: [] };
    this.owners.set(owner, known);
    return known;
  }
}

/** How much had been downloaded at some time. */
interface Mark {
  readonly at: number;
  readonly bytes: number;
}

class HeldPlace implements Place {
  readonly owner: object;
  readonly since = performance.now();
  displaced = false;
  settled = false;
  private readonly onDisplaced: () => void;
  private readonly onLeave: () => void;
  private bytes = 0;
  private mark: Mark = { at: this.since, bytes: 0 };
  /** The mark before: the speed is that since then, over one window at least, and two at most. */
  private before: Mark = this.mark;

  constructor(owner: object, onDisplaced: () => void, onLeave: () => void) {
    this.owner = owner;
    this.onDisplaced = onDisplaced;
    this.onLeave = onLeave;
  }

  progress(bytes: number): void {
    this.bytes = bytes;
    const now = performance.now();
    if (now - this.mark.at < WINDOW_MS) return;
    this.before = this.mark;
    this.mark = { at: now, bytes };
  }

  /** Bytes a second. */
  speed(now: number): number {
    const seconds = (now - this.before.at) / 1000;
    return seconds > 0 ? (this.bytes - this.before.bytes) / seconds : Number.POSITIVE_INFINITY;
  }

  settle(): void {
    this.settled = true;
  }

  leave(): void {
    this.onLeave();
  }

  displace(): void {
    this.displaced = true;
    this.onDisplaced();
  }
}
