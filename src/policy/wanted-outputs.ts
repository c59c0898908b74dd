/** Which outputs are wanted of which derivations, gathered from many that name them. */
import type { StorePath } from "../store/store-path.ts";

/** By derivation, the names of the wanted outputs; undefined for all that it has. */
export type WantedNames = ReadonlyMap<StorePath, ReadonlySet<string> | undefined>;

export class WantedOutputs {
  private readonly names = new Map<StorePath, Set<string> | undefined>();

  get byDerivation(): WantedNames {
    return this.names;
  }

  /** @param names undefined for all of them */
  add(derivation: StorePath, names: Iterable<string> | undefined): void {
    const known = this.names.get(derivation);
    if (names === undefined) this.names.set(derivation, undefined);
    else if (known) for (const name of names) known.add(name);
    else if (!this.names.has(derivation)) this.names.set(derivation, new Set(names));
  }
}
