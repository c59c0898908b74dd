/** What this process has waited for, so that a slow test can be told why it is slow. */

export interface Waited {
  /** Such as "nix-build". */
  readonly what: string;
  times: number;
  ms: number;
}

const waited = new Map<string, Waited>();

/** Waits for something, and counts it. What is waited for at the same time counts twice. */
export async function tallied<T>(what: string, wait: Promise<T>): Promise<T> {
  const started = performance.now();
  try {
    return await wait;
  } finally {
    const entry = waited.get(what) ?? { what, times: 0, ms: 0 };
    entry.times++;
    entry.ms += performance.now() - started;
    waited.set(what, entry);
  }
}

/** The longest waits first. */
export function tally(): readonly Waited[] {
  return [...waited.values()].sort((a, b) => b.ms - a.ms);
}
