/** The view of a sandbox: the paths that it may know of. It only grows. */
import {
  type MadePathInfo,
  type MaybePromise,
  type OutputPaths,
  type PathInfo,
  staticOutputs,
  type ViewQueries,
} from "../policy/view-queries.ts";
import type { Derivation } from "../store/derivation.ts";
import { isDerivationPath, type StorePath, storePathHash } from "../store/store-path.ts";
import { Derivers } from "./derivers.ts";
import { HeldInfos, type Holder } from "./held-infos.ts";
import { Lane } from "./turns.ts";
import { OUTPUT_MAP_SINCE, type UpstreamStore } from "./upstream/store.ts";

export interface View extends ViewQueries {
  /** Whether it is a closed world: whatever is not in it does not exist. */
  readonly closed: boolean;
  /** Whether its info is at hand, without asking upstream. */
  knows(path: StorePath): boolean;
  /** Paths in the view, as far as they are counted. */
  readonly size: number;
  /** Adds a closure: the info of every path that `infos` refer to is already there or among them. */
  add(infos: Iterable<PathInfo>): void;
  /** Whether a derivation of the view resolves to this one, which need not be in the view. */
  isResolved(path: StorePath): MaybePromise<boolean>;
  /** Notes what upstream told of a path that a client added on that connection; only where the view itself does not hold it. */
  hold?(info: PathInfo, holder: Holder): void;
}

/** A closed world, held in memory. */
export class ClosedView implements View {
  readonly closed = true;
  readonly storeDir: string;
  private readonly store: UpstreamStore;
  private readonly outputMapKnown: () => boolean;
  private readonly infos = new Map<StorePath, PathInfo>();
  private readonly hashes = new Map<string, StorePath>();
  private readonly referrersOf = new Map<StorePath, StorePath[]>();
  /** Undefined since the view grew. A client may ask for it all the time, and views are large: they are not sorted either. */
  private listed: readonly StorePath[] | undefined;
  private readonly derivations: Derivers;
  /** Outputs of derivations that do not contain their paths, once all are known: what is in the view is kept, and stays so. */
  private readonly complete = new Map<StorePath, OutputPaths>();
  private readonly completeOutputs = (path: StorePath): OutputPaths | undefined => this.complete.get(path);

  /** @param minor upstream's protocol version: older ones do not know floating outputs */
  constructor(store: UpstreamStore, minor: () => number) {
    this.store = store;
    this.storeDir = store.storeDir;
    this.outputMapKnown = () => minor() >= OUTPUT_MAP_SINCE;
    this.derivations = new Derivers(
      {
        derivation: (path) => this.derivation(path),
        outputs: (path, question) => this.outputs(path, question),
        resolver: (most) => store.resolver({ most, known: this.completeOutputs }),
      },
      new Lane(),
    );
  }

  get size(): number {
    return this.infos.size;
  }

  add(infos: Iterable<PathInfo>): void {
    for (const info of infos) {
      if (this.infos.has(info.path)) continue;
      this.infos.set(info.path, info);
      this.listed = undefined;
      if (isDerivationPath(info.path)) this.derivations.add(info.path);
      this.hashes.set(storePathHash(info.path), info.path);
      for (const reference of info.references) append(this.referrersOf, reference, info.path);
    }
  }

  has(path: StorePath): boolean {
    return this.infos.has(path);
  }

  knows(path: StorePath): boolean {
    return this.infos.has(path);
  }

  info(path: StorePath): PathInfo | undefined {
    return this.infos.get(path);
  }

  among(paths: readonly StorePath[]): ReadonlySet<StorePath> {
    return new Set(paths.filter((path) => this.infos.has(path)));
  }

  all(): readonly StorePath[] {
    this.listed ??= [...this.infos.keys()];
    return this.listed;
  }

  byHashPart(hashPart: string): StorePath | undefined {
    return this.hashes.get(hashPart);
  }

  referrers(path: StorePath): readonly StorePath[] {
    return this.referrersOf.get(path) ?? [];
  }

  derivers(path: StorePath): Promise<StorePath[]> {
    return this.derivations.of(path);
  }

  isResolved(path: StorePath): Promise<boolean> {
    return this.derivations.isResolved(path);
  }

  async derivation(path: StorePath): Promise<Derivation | undefined> {
    const info = this.infos.get(path);
    return info && isDerivationPath(path) ? this.store.derivation(path, info, this) : undefined;
  }

  remembered(path: StorePath): Derivation | undefined {
    return this.infos.has(path) ? this.store.remembered(path) : undefined;
  }

  async outputs(path: StorePath, question?: object): Promise<OutputPaths | undefined> {
    const known = this.complete.get(path);
    if (known) return known;
    const derivation = await this.derivation(path);
    if (!derivation) return undefined;
    const outputs = staticOutputs(derivation);
    if (![...outputs.values()].includes("") || !this.outputMapKnown()) return outputs;
    const resolved = await this.store.outputMap(path, this.store.resolverFor(question, this.completeOutputs));
    for (const [name, output] of resolved)
      if (outputs.get(name) === "" && this.infos.has(output)) outputs.set(name, output);
    if (![...outputs.values()].includes("")) this.complete.set(path, outputs);
    return outputs;
  }
}

function append(lists: Map<StorePath, StorePath[]>, key: StorePath, value: StorePath): void {
  const list = lists.get(key);
  if (list) list.push(value);
  else lists.set(key, [value]);
}

/** Fewer are asked about one by one as well: holding them takes a connection. */
const EXPECTED_AT_LEAST = 16;
/** For more the client waits anyway. */
const MOST_EXPECTED = 4096;

/** Everything valid, for jails that see the whole store anyway: the closed world (G1) does not hold here. */
export class StoreView implements View {
  readonly substitutes: boolean;
  readonly storeDir: string;
  readonly closed = false;
  readonly size = 0;
  private readonly store: UpstreamStore;
  private readonly held = new HeldInfos();
  private readonly outputMapKnown: () => boolean;

  /** @param substitute whether upstream may ask its caches for clients */
  constructor(store: UpstreamStore, minor: () => number, substitute: boolean) {
    this.store = store;
    this.storeDir = store.storeDir;
    this.outputMapKnown = () => minor() >= OUTPUT_MAP_SINCE;
    this.substitutes = substitute;
  }

  add(): void {}

  knows(path: StorePath): boolean {
    return this.held.get(path) !== undefined;
  }

  hold(info: PathInfo, holder: Holder): void {
    this.held.add(info, holder);
  }

  expect(paths: readonly StorePath[]): void {
    const derivations = paths.filter((path) => !this.held.get(path) && this.store.rememberedInfo(path));
    if (derivations.length < EXPECTED_AT_LEAST) return;
    void this.store.hold(derivations.slice(0, MOST_EXPECTED)).then((leased) => {
      for (const path of leased?.valid ?? []) {
        const info = this.store.rememberedInfo(path);
        if (leased && info && !this.held.get(path)) this.held.add(info, leased.connection);
      }
    });
  }

  has(path: StorePath): MaybePromise<boolean> {
    return this.held.get(path) !== undefined || this.store.has(path);
  }

  info(path: StorePath): MaybePromise<PathInfo | undefined> {
    return this.held.get(path) ?? this.store.info(path);
  }

  readonly madeInfo = async (path: StorePath): Promise<MadePathInfo | undefined> => {
    const held = this.held.get(path);
    // What a client has added, nothing has made.
    return held ? { ...held, deriver: "" } : this.store.madeInfo(path);
  };

  among(paths: readonly StorePath[]): MaybePromise<ReadonlySet<StorePath>> {
    const found = new Set<StorePath>();
    const unheld: StorePath[] = [];
    for (const path of paths)
      if (this.held.get(path)) found.add(path);
      else unheld.push(path);
    return unheld.length === 0
      ? found
      : this.store.among(unheld).then((more) => new Set([...found, ...more]));
  }

  isResolved(): boolean {
    return false;
  }

  all(): Promise<StorePath[]> {
    return this.store.allValid();
  }

  async byHashPart(hashPart: string): Promise<StorePath | undefined> {
    return (await this.store.byHashPart(hashPart)) || undefined;
  }

  referrers(path: StorePath): Promise<StorePath[]> {
    return this.store.referrers(path);
  }

  derivers(path: StorePath): Promise<StorePath[]> {
    return this.store.derivers(path);
  }

  async derivation(path: StorePath): Promise<Derivation | undefined> {
    if (!isDerivationPath(path)) return undefined;
    const info = await this.info(path);
    return info && this.store.derivation(path, info, this);
  }

  remembered(path: StorePath): Derivation | undefined {
    return this.store.remembered(path);
  }

  async outputs(path: StorePath, question?: object): Promise<OutputPaths | undefined> {
    const derivation = await this.derivation(path);
    if (!derivation) return undefined;
    const outputs = staticOutputs(derivation);
    if (![...outputs.values()].includes("") || !this.outputMapKnown()) return outputs;
    return this.store.outputMap(path, this.store.resolverFor(question));
  }
}
