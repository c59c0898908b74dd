/** Values that several hold at once under the same key: there is one for all of them, as long as anybody holds it. */
export class SharedValues<K, V> {
  private readonly kept = new Map<K, { readonly key: K; readonly value: V; holders: number }>();

  /** How many there are. */
  get size(): number {
    return this.kept.size;
  }

  /** @returns the key and the value to use: those of the first holder */
  hold(key: K, value: V): readonly [K, V] {
    const entry = this.kept.get(key) ?? { key, value, holders: 0 };
    entry.holders++;
    this.kept.set(entry.key, entry);
    return [entry.key, entry.value];
  }

  /** To be called once for each time that it was held. */
  release(key: K): void {
    const entry = this.kept.get(key);
    if (entry && --entry.holders === 0) this.kept.delete(key);
  }
}
