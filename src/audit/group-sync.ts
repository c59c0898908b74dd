/**
 * Syncs what was written, for all who ask at about the same time by one sync, and not on the main loop: a sync takes
 * milliseconds, and nobody else may wait for it.
 */
export class GroupSync {
  private readonly sync: () => Promise<void>;
  private running: Promise<void> | undefined;
  /** Begins when the running one has ended: what is written from now on may be too late for that. */
  private next: Promise<void> | undefined;

  /** @param sync makes everything durable that was written before it is called */
  constructor(sync: () => Promise<void>) {
    this.sync = sync;
  }

  /** Resolves once everything that was written before the call is on disk. @throws what `sync` throws */
  request(): Promise<void> {
    this.next ??= this.after(this.running);
    return this.next;
  }

  private async after(running: Promise<void> | undefined): Promise<void> {
    await running?.catch(() => undefined);
    // Always later than `request`, which sets it.
    await Promise.resolve();
    this.running = this.next;
    this.next = undefined;
    await this.sync();
  }
}
