/**
 * What a sandbox, including everything nested in it, has used. Each bound is a limit of the profile; the
 * error names it, so that anyone who reaches it knows which key to raise.
 */
import { type LimitName, type Limits, limitTable } from "../policy/limits.ts";
import { Refusal } from "./refusal.ts";

const MINUTE_MS = 60_000;
const SECOND_MS = 1000;
/** Audit rows per second about rejected clients. */
const MOST_REFUSAL_ROWS = 16;
/** How many rejected clients are told why at once. */
const MOST_REFUSALS = 16;

/** Of the subjects of one audit row, in characters. */
const ROW_CHARACTERS = 4096;

export class Quota {
  private readonly limits: Limits;
  /** Called with the limit that was hit; for the metrics. */
  readonly onLimit: (limit: LimitName) => void;
  /** Connections whose sockets are still open. */
  connections = 0;
  buildsRunning = 0;
  builds = 0;
  bytesAdded = 0;
  auditRows = 0;
  private refusals = 0;
  private refusalSecond = 0;
  private refusalRows = 0;
  private windowStart = 0;
  private windowBuilds = 0;

  constructor(limits: Limits, onLimit: (limit: LimitName) => void) {
    this.limits = limits;
    this.onLimit = onLimit;
  }

  /**
   * Counts a connection.
   *
   * @returns the function that ends it
   *
   * @throws Refusal when the maximum is reached
   */
  openConnection(): () => void {
    this.check("connections", this.connections + 1, "open connections");
    this.connections++;
    return () => {
      this.connections--;
    };
  }

  /**
   * Counts a running build request.
   *
   * @returns the function that ends it
   *
   * @throws Refusal
   */
  startBuild(): () => void {
    this.check("concurrentBuilds", this.buildsRunning + 1, "build requests at once");
    this.check("builds", this.builds + 1, "build requests");
    // Not the time of day: when that is set back, a minute would last as long again.
    const now = performance.now();
    if (now - this.windowStart >= MINUTE_MS) {
      this.windowStart = now;
      this.windowBuilds = 0;
    }
    this.check("buildRate", this.windowBuilds + 1, "build requests within a minute");
    this.windowBuilds++;
    this.builds++;
    this.buildsRunning++;
    return () => {
      this.buildsRunning--;
    };
  }

  /** @throws Refusal when one build request names so many paths and outputs */
  checkTargets(targets: number): void {
    this.check("buildTargets", targets, "paths and outputs in one build request");
  }

  /** @throws Refusal when the total of bytes would be too large. */
  addBytes(bytes: number): void {
    this.check("bytesAdded", this.bytesAdded + bytes, "bytes added");
    this.bytesAdded += bytes;
  }

  /** @throws Refusal unless this many more audit rows may be caused. */
  checkAuditRows(rows = 1): void {
    this.check("auditRows", this.auditRows + rows, "audit rows");
  }

  /**
   * Counts an audit row; a large one counts as several.
   *
   * @returns false for what is not to be recorded: beyond the limit nothing is served, and the first row says so
   */
  countAuditRow(subjects: readonly string[] = []): boolean {
    const served = this.auditRows <= this.limits.auditRows;
    let length = 0;
    for (const subject of subjects) length += subject.length;
    this.auditRows += 1 + Math.floor(length / ROW_CHARACTERS);
    return served;
  }

  /**
   * Counts a rejected client, which takes a moment: it is told why, if it listens.
   *
   * @returns undefined if so many are already being told that this one is not; otherwise the function that ends
   * it
   */
  startRefusal(): (() => void) | undefined {
    if (this.refusals >= MOST_REFUSALS) return undefined;
    this.refusals++;
    return () => {
      this.refusals--;
    };
  }

  /** Whether a rejected client is recorded: not every one of thousands, because they use up nothing else. */
  recordsRefusal(): boolean {
    const now = performance.now();
    if (now - this.refusalSecond >= SECOND_MS) {
      this.refusalSecond = now;
      this.refusalRows = 0;
    }
    return ++this.refusalRows <= MOST_REFUSAL_ROWS;
  }

  /** @throws Refusal */
  checkView(paths: number): void {
    this.check("viewPaths", paths, "paths in the view");
  }

  /** @throws Refusal */
  checkRoots(roots: number): void {
    this.check("gcRoots", roots, "roots of the garbage collector");
  }

  private check(limit: LimitName, wanted: number, what: string): void {
    if (wanted <= this.limits[limit]) return;
    throw new Refusal(
      `this sandbox may have no more than ${this.limits[limit]} ${what} (limits.${limitTable[limit].key})`,
      { limit },
    );
  }
}
