/** A time by which there must be progress. Each sign of life restarts it, even after it passed; when it passes, `expired` is called. */
export class Deadline {
  private readonly timer: NodeJS.Timeout | undefined;
  passed = false;

  /** @param seconds `Infinity` for none */
  constructor(seconds: number, expired: () => void) {
    // setTimeout allows at most 2^31 - 1 ms, 24 days.
    if (seconds * 1000 > 0x7fffffff) return;
    this.timer = setTimeout(() => {
      this.passed = true;
      expired();
    }, seconds * 1000);
  }

  alive(): void {
    this.timer?.refresh();
  }

  clear(): void {
    clearTimeout(this.timer);
  }
}
