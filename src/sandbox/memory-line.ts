/**
 * A line of those who wait for a share of a fixed amount of memory. Sandboxes take turns, and each has one share or a
 * quarter of the whole at most. Who has its turn and does not fit waits until it does: nobody smaller gets ahead, so
 * nobody waits forever, provided that everybody who holds a share comes to an end without waiting in the same line.
 */

/** A share of the memory that is held. */
export interface Share {
  readonly bytes: number;
  /** Gives back what is beyond `bytes`. */
  shrink(bytes: number): void;
  /** Gives back all of it; a second time does nothing. */
  release(): void;
}

/** What one sandbox may hold, unless it is a single share. */
const PART_OF_ONE = 1 / 4;

/** One who waits. */
interface Waiter {
  readonly bytes: number;
  grant(share: Share): void;
}

export class MemoryLine {
  readonly size: number;
  private inUse = 0;
  private readonly usedBy = new Map<object, number>();
  /** By whose they are, who has the next turn first. None is empty. */
  private readonly queues = new Map<object, Waiter[]>();

  /** @param size in bytes */
  constructor(size: number) {
    this.size = size;
  }

  /** Bytes. */
  get held(): number {
    return this.inUse;
  }

  get waiting(): number {
    let waiting = 0;
    for (const queue of this.queues.values()) waiting += queue.length;
    return waiting;
  }

  /**
   * Waits for a share.
   * @param owner whom it counts for: a sandbox
   * @throws the reason of `signal` when it ends the wait; RangeError for more than there is
   */
  take(owner: object, bytes: number, signal?: AbortSignal): Promise<Share> {
    if (bytes > this.size)
      return Promise.reject(
        new RangeError(`${bytes} bytes are wanted of ${this.size}; runtime.memory is too small`),
      );
    if (signal?.aborted) return Promise.reject(signal.reason);
    if (this.queues.size === 0 && this.mayHave(owner, bytes) && this.fits(bytes))
      return Promise.resolve(this.share(owner, bytes));
    return new Promise((resolve, reject) => {
      const cancel = (): void => {
        this.leave(owner, waiter);
        reject(signal?.reason);
        this.serve();
      };
      const waiter = {
        bytes,
        grant(share: Share): void {
          signal?.removeEventListener("abort", cancel);
          resolve(share);
        },
      };
      signal?.addEventListener("abort", cancel, { once: true });
      const queue = this.queues.get(owner);
      if (queue) queue.push(waiter);
      else this.queues.set(owner, [waiter]);
      this.serve();
    });
  }

  private fits(bytes: number): boolean {
    return this.inUse + bytes <= this.size;
  }

  /** Grants in turns until whoever is next does not fit. */
  private serve(): void {
    for (let next = this.next(); next; next = this.next()) {
      const [owner, [waiter]] = next;
      if (!waiter || !this.fits(waiter.bytes)) return;
      this.leave(owner, waiter);
      waiter.grant(this.share(owner, waiter.bytes));
    }
  }

  /** Whose turn it is: those who have their part already are passed over. */
  private next(): readonly [object, Waiter[]] | undefined {
    for (const entry of this.queues) {
      const [owner, [waiter]] = entry;
      if (waiter && this.mayHave(owner, waiter.bytes)) return entry;
    }
    return undefined;
  }

  private mayHave(owner: object, bytes: number): boolean {
    const used = this.usedBy.get(owner) ?? 0;
    return used === 0 || used + bytes <= this.size * PART_OF_ONE;
  }

  /** Takes a waiter out; its owner's next turn comes after everybody else's. */
  private leave(owner: object, waiter: Waiter): void {
    const left = this.queues.get(owner)?.filter((other) => other !== waiter) ?? [];
    this.queues.delete(owner);
    if (left.length > 0) this.queues.set(owner, left);
  }

  private share(owner: object, bytes: number): Share {
    let held = 0;
    const resize = (to: number): void => {
      this.inUse += to - held;
      const used = (this.usedBy.get(owner) ?? 0) + to - held;
      if (used > 0) this.usedBy.set(owner, used);
      else this.usedBy.delete(owner);
      held = to;
    };
    resize(bytes);
    return {
      get bytes() {
        return held;
      },
      shrink: (to) => {
        if (to >= held) return;
        resize(to);
        this.serve();
      },
      release: () => {
        if (held === 0) return;
        resize(0);
        this.serve();
      },
    };
  }
}
