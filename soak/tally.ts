/** What happened in a soak, and what was wrong with it. */

/** Counts by kind. */
export type Counts = ReadonlyMap<string, number>;

export class Tally {
  private readonly counts = {
    builds: new Map(),
    disturbances: new Map(),
    checks: new Map(),
  } satisfies Record<string, Map<string, number>>;
  private readonly found: string[] = [];
  private readonly say: (line: string) => void;

  /** @param say told of each fault at once, and of what else may help to find its cause */
  constructor(say: (line: string) => void) {
    this.say = say;
  }

  count(what: keyof Tally["counts"], kind: string, by = 1): void {
    const counts: Map<string, number> = this.counts[what];
    counts.set(kind, (counts.get(kind) ?? 0) + by);
  }

  get builds(): Counts {
    return this.counts.builds;
  }

  get disturbances(): Counts {
    return this.counts.disturbances;
  }

  get checks(): Counts {
    return this.counts.checks;
  }

  /** Something that must never be. */
  fault(text: string): void {
    this.found.push(text);
    this.say(`FAULT: ${text}`);
  }

  note(text: string): void {
    this.say(text);
  }

  get faults(): readonly string[] {
    return this.found;
  }
}
