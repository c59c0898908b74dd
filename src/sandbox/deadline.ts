/** A time by which something must go on. Each sign of life starts it anew; when it passes, `expired` is called once. */
export class Deadline {
  private readonly timer: NodeJS.Timeout | undefined;
  passed = false;

  /** @param seconds `Infinity` for none */
  constructor(seconds: number, expired: () => void) {
    // setTimeout knows no longer time than 2^31 - 1 ms, 24 days.
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
