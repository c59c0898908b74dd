/** How much the clients of each user have open at once. */
export class PerUser {
  private readonly open = new Map<number, number>();

  /**
   * Counts one more for a user. @param most how many a user may have
   *
   * @returns the function that ends it; undefined if the user already has the maximum
   */
  enter(uid: number, most: number): (() => void) | undefined {
    const before = this.open.get(uid) ?? 0;
    if (before >= most) return undefined;
    this.open.set(uid, before + 1);
    return () => {
      const left = (this.open.get(uid) ?? 1) - 1;
      if (left > 0) this.open.set(uid, left);
      else this.open.delete(uid);
    };
  }
}
