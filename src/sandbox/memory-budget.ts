/** The memory that requests of all sandboxes and parsed texts may take together: `runtime.memory`, divided in lines. */
import {
  divideMemory,
  memoryForNames,
  memoryLines,
  PARSING_COST,
  REQUEST_COST,
  SCANNED_PATH_COST,
  UNCOUNTED,
  UNCOUNTED_PATHS,
} from "../policy/memory.ts";
import { MemoryLine, type Share } from "./memory-line.ts";
import { Refusal } from "./refusal.ts";

/** What is small enough not to be counted. */
const NOTHING: Share = { bytes: 0, shrink() {}, release() {} };

export class MemoryBudget {
  readonly size: number;
  readonly medium: MemoryLine;
  readonly long: MemoryLine;
  readonly parsing: MemoryLine;
  /** What the build requests of a sandbox hold while they are built. */
  private readonly names = new Map<object, number>();

  /** @param size in bytes */
  constructor(size: number) {
    const sizes = divideMemory(size);
    this.size = size;
    this.medium = new MemoryLine(sizes.medium);
    this.long = new MemoryLine(sizes.long);
    this.parsing = new MemoryLine(sizes.parsing);
  }

  /** Bytes. */
  get held(): number {
    const ofBuilds = [...this.names.values()].reduce((sum, bytes) => sum + bytes, 0);
    return memoryLines.reduce((sum, line) => sum + this[line].held, ofBuilds);
  }

  /** Requests that wait. */
  get waiting(): number {
    return memoryLines.reduce((sum, line) => sum + this[line].waiting, 0);
  }

  /**
   * Waits until a derivation may be read and parsed. Whoever holds this waits for nothing else here, and no client.
   * @param owner whom it counts for
   * @param length of its text, in bytes
   */
  toParse(owner: object, length: number): Share | Promise<Share> {
    return length <= UNCOUNTED ? NOTHING : this.parsing.take(owner, length * PARSING_COST);
  }

  /**
   * Waits until contents may be scanned for so many paths; as `toParse`.
   * @param owner whom it counts for
   */
  toScan(owner: object, paths: number): Promise<Share> {
    if (paths <= UNCOUNTED_PATHS) return Promise.resolve(NOTHING);
    return this.parsing.take(owner, Math.min(this.parsing.size, paths * SCANNED_PATH_COST));
  }

  /**
   * Counts the names in a build request while they are built, for hours perhaps: nobody could wait for that.
   * @param owner whom it counts for
   * @param length of the request, in bytes
   * @returns what ends it
   * @throws Refusal when the builds of its owner hold too much
   */
  toBuild(owner: object, length: number): () => void {
    if (length <= UNCOUNTED) return () => {};
    const bytes = length * REQUEST_COST;
    const held = (this.names.get(owner) ?? 0) + bytes;
    const most = memoryForNames(this.size);
    if (held > most)
      throw new Refusal(
        `the build requests of this sandbox name too many paths at once: together they may have at most ${Math.floor(most / REQUEST_COST)} bytes (runtime.memory / 32); ask for less at a time`,
      );
    this.names.set(owner, held);
    return () => {
      const left = (this.names.get(owner) ?? 0) - bytes;
      if (left > 0) this.names.set(owner, left);
      else this.names.delete(owner);
    };
  }
}
