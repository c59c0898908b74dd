/** What the derivations of a closed view make, and resolve to: found out when somebody asks, for few do, and views are large. */
import { type OutputPaths, staticOutputs } from "../policy/view-queries.ts";
import { type Derivation, DerivationError } from "../store/derivation.ts";
import { mapInSlices, type Pace } from "../store/slices.ts";
import { type StorePath, storePathName } from "../store/store-path.ts";
import type { Resolution, Resolver } from "./upstream/resolver.ts";

const READ_AT_ONCE = 64;
/** Of one question: derivations with outputs that are not known yet, the newest first. */
const MOST_FLOATING = 1000;
/** Of one question: derivations that are looked at to find the one that resolves to another, with what those need. */
const MOST_LOOKED_AT = 5000;

/** What is known of the derivations. */
export interface KnownDerivations {
  /** Undefined for one that is not in the view. @throws DerivationError for a file that is none */
  derivation(path: StorePath): Promise<Derivation | undefined>;
  /** As `ViewQueries.outputs`. */
  outputs(path: StorePath, question: object): Promise<OutputPaths | undefined>;
  /** @param most derivations that it looks at */
  resolver(most: number): Resolver;
}

export class Derivers {
  private readonly known: KnownDerivations;
  private readonly pace: Pace;
  /** Neither in `byOutput` nor in `floating` yet. */
  private readonly unread = new Set<StorePath>();
  private reading: Promise<void> = Promise.resolve();
  private readonly byOutput = new Map<StorePath, StorePath[]>();
  /** Those with outputs whose paths they do not contain, and that are not all known. */
  private readonly floating = new Set<StorePath>();
  /** By the names of their paths: those of which it is not known yet what they resolve to. */
  private readonly unresolved = new Map<string, Set<StorePath>>();
  /** What others resolve to. It stays: the outputs that they need are kept as long as the view is. */
  private readonly resolved = new Set<StorePath>();

  constructor(known: KnownDerivations, pace: Pace) {
    this.known = known;
    this.pace = pace;
  }

  add(path: StorePath): void {
    this.unread.add(path);
    const name = storePathName(path);
    const named = this.unresolved.get(name);
    if (named) named.add(path);
    else this.unresolved.set(name, new Set([path]));
  }

  /** Those that have this output. @throws UpstreamError */
  async of(output: StorePath): Promise<StorePath[]> {
    const reading = this.reading.then(() => this.readAll());
    this.reading = reading.catch(() => undefined);
    await reading;
    const question = {};
    const partly: StorePath[] = [];
    await mapInSlices([...this.floating].slice(-MOST_FLOATING).reverse(), this.pace, async (path) => {
      const outputs = await this.known.outputs(path, question);
      if (!outputs) return;
      if (floats(outputs)) {
        if ([...outputs.values()].includes(output)) partly.push(path);
        // Otherwise somebody else has asked the same meanwhile.
      } else if (this.floating.delete(path)) this.file(path, outputs);
    });
    return [...(this.byOutput.get(output) ?? []), ...partly];
  }

  /** Whether one of them resolves to this derivation, as far as that can be found out without looking at too many. */
  async isResolved(path: StorePath): Promise<boolean> {
    if (this.resolved.has(path)) return true;
    const named = this.unresolved.get(storePathName(path));
    if (!named) return false;
    const resolver = this.known.resolver(MOST_LOOKED_AT);
    for (const derivation of [...named].slice(-MOST_LOOKED_AT).reverse()) {
      const { resolved, outputs } = await resolver.resolution(derivation).catch(unlessNoDerivation);
      if (resolved !== undefined) {
        this.resolved.add(resolved);
        named.delete(derivation);
        if (resolved === path) return true;
      } else if (resolver.exhausted) return false;
      else if (!floats(outputs)) named.delete(derivation);
    }
    return false;
  }

  /** @throws UpstreamError; then the next caller goes on from there */
  private async readAll(): Promise<void> {
    const fresh = [...this.unread];
    for (let i = 0; i < fresh.length; i += READ_AT_ONCE) {
      if (this.pace.due) await this.pace.pause();
      const slice = fresh.slice(i, i + READ_AT_ONCE);
      // Of each the outputs only, as soon as it was read: views are large.
      const read = await Promise.all(slice.map((path) => this.read(path)));
      for (const [at, path] of slice.entries()) {
        this.unread.delete(path);
        const outputs = read[at];
        if (outputs && floats(outputs)) this.floating.add(path);
        else if (outputs) this.file(path, outputs);
      }
    }
  }

  /** @returns the outputs that its text names; undefined if it is none */
  private async read(path: StorePath): Promise<OutputPaths | undefined> {
    try {
      const derivation = await this.known.derivation(path);
      return derivation && staticOutputs(derivation);
    } catch (error) {
      // Any text can have such a name.
      if (error instanceof DerivationError) return undefined;
      throw error;
    }
  }

  private file(path: StorePath, outputs: OutputPaths): void {
    for (const output of outputs.values()) {
      const made = this.byOutput.get(output);
      if (made) made.push(path);
      else this.byOutput.set(output, [path]);
    }
  }
}

/** Any text can have such a name. @throws the error if it is another one */
function unlessNoDerivation(error: Error): Resolution {
  if (error instanceof DerivationError) return { outputs: new Map(), resolved: undefined };
  throw error;
}

function floats(outputs: OutputPaths): boolean {
  return [...outputs.values()].includes("");
}
