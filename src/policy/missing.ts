/**
 * QueryMissing, answered from the view: paths in it are there, the outputs of its derivations would be built,
 * anything else is unknown. What upstream has or could fetch does not matter (G1).
 *
 * A request can name one derivation half a million times. So what is wanted of each is gathered first, each is read once,
 * and once it is to be built nothing more that is wanted of it changes the answer.
 *
 * Where the view is upstream's store, each question takes a while. So many paths are asked about at once, with those that
 * will probably be asked about next: never many more than the answer depends on.
 */
import type { ReplyOf } from "../protocol/operations.ts";
import type { Derivation } from "../store/derivation.ts";
import { type Pace, paced } from "../store/slices.ts";
import type { StorePath } from "../store/store-path.ts";
import { parseDerivedPath } from "./derived-path.ts";
import { amongView, type OutputPaths, staticOutputs, type ViewQueries } from "./view-queries.ts";
import { type WantedNames, WantedOutputs } from "./wanted-outputs.ts";

export async function missingInView(
  targets: readonly string[],
  view: ViewQueries,
  minor: number,
  pace: Pace,
): Promise<ReplyOf<"QueryMissing">> {
  const paths = new Set<StorePath>();
  const wanted = new WantedOutputs();
  for await (const target of paced(targets, pace)) {
    const path = parseDerivedPath(target, minor, view.storeDir);
    if (path?.kind === "path") paths.add(path.path);
    if (path?.kind === "outputs") wanted.add(path.derivation, path.outputs);
  }
  const missing = new Missing(view, pace);
  await missing.wantPaths(paths);
  for (let level = wanted.byDerivation; level.size > 0; ) level = await missing.wantOutputs(level);
  return {
    willBuild: [...missing.willBuild],
    willSubstitute: [],
    unknown: [...missing.unknown],
    downloadSize: 0,
    narSize: 0,
  };
}

/** How many derivations are read at once. */
const READ_AT_ONCE = 16;
/** How many more derivations are asked about at the beginning than the answer may depend on. */
const FORESEEN_AT_LEAST = 64;

class Missing {
  readonly willBuild = new Set<StorePath>();
  readonly unknown = new Set<StorePath>();
  private readonly view: ViewQueries;
  private readonly pace: Pace;
  /** Of the paths that were asked about: whether they are in the view. */
  private readonly present = new Map<StorePath, boolean>();
  /** Of the derivations that were read. */
  private readonly outputsOf = new Map<StorePath, OutputPaths>();

  /** The derivations that were looked at before they were wanted, if they ever are. */
  private readonly foreseen = new Set<StorePath>();

  constructor(view: ViewQueries, pace: Pace) {
    this.view = view;
    this.pace = pace;
  }

  async wantPaths(paths: ReadonlySet<StorePath>): Promise<void> {
    await this.ask(paths);
    for await (const path of paced(paths, this.pace)) if (!this.present.get(path)) this.unknown.add(path);
  }

  /** @returns what those of them that would be built need */
  async wantOutputs(level: WantedNames): Promise<WantedNames> {
    const next = new WantedOutputs();
    const pending = [...level].filter(([path]) => !this.willBuild.has(path));
    await this.foresee(pending.map(([path]) => path));
    for (let i = 0; i < pending.length; i += READ_AT_ONCE) {
      const piece = pending.slice(i, i + READ_AT_ONCE);
      const derivations = await this.read(piece.map(([path]) => path));
      for (const [path, names] of piece) {
        const derivation = derivations.get(path);
        if (!derivation) this.unknown.add(path);
        else if (await this.mustBuild(path, names)) {
          this.willBuild.add(path);
          for await (const [input, wanted] of paced(derivation.inputDrvs, this.pace)) next.add(input, wanted);
        }
      }
    }
    return next.byDerivation;
  }

  private async mustBuild(path: StorePath, names: ReadonlySet<string> | undefined): Promise<boolean> {
    const outputs = this.outputsOf.get(path);
    for await (const name of paced(names ?? outputs?.keys() ?? [], this.pace))
      if (!this.present.get(outputs?.get(name) ?? "")) return true;
    return false;
  }

  /** Those of the derivations that are in the view; of their outputs it is known then whether they are, too. */
  private async read(paths: readonly StorePath[]): Promise<ReadonlyMap<StorePath, Derivation>> {
    await this.ask(paths.filter((path) => this.view.remembered(path)));
    const derivations = new Map<StorePath, Derivation>();
    await Promise.all(
      paths.map(async (path) => {
        const remembered = this.view.remembered(path);
        if (remembered && !this.present.has(path)) await this.ask([path]);
        const derivation = remembered
          ? this.present.get(path) && remembered
          : await this.view.derivation(path);
        if (!derivation) return;
        derivations.set(path, derivation);
        if (!this.outputsOf.has(path)) this.outputsOf.set(path, await this.outputs(path, derivation));
      }),
    );
    const outputs: StorePath[] = [];
    for (const path of derivations.keys())
      for await (const output of paced(this.outputsOf.get(path)?.values() ?? [], this.pace))
        if (output !== "") outputs.push(output);
    await this.ask(outputs);
    return derivations;
  }

  private async outputs(path: StorePath, derivation: Derivation): Promise<OutputPaths> {
    const outputs = staticOutputs(derivation);
    if (![...outputs.values()].includes("")) return outputs;
    return (await this.view.outputs(path, this)) ?? outputs;
  }

  /**
   * Asks about these derivations, their outputs, and those below them, as far as they can be told without asking: at most
   * as many more as are to be built so far. Nothing is foreseen twice: what is wanted later starts further down.
   */
  private async foresee(derivations: readonly StorePath[]): Promise<void> {
    const paths: StorePath[] = [];
    const most = derivations.length + this.willBuild.size + FORESEEN_AT_LEAST;
    const queue = new Set(derivations);
    let looked = 0;
    for (const path of queue) {
      if (this.pace.due) await this.pace.pause();
      if (this.foreseen.has(path)) continue;
      if (++looked > most) break;
      this.foreseen.add(path);
      const derivation = this.view.remembered(path);
      if (!derivation) continue;
      paths.push(path);
      for (const output of staticOutputs(derivation).values()) if (output !== "") paths.push(output);
      for (const input of derivation.inputDrvs.keys()) queue.add(input);
    }
    await this.ask(paths);
  }

  /** Finds out whether they are in the view, once for each. */
  private async ask(paths: Iterable<StorePath>): Promise<void> {
    const fresh: StorePath[] = [];
    for await (const path of paced(paths, this.pace)) if (!this.present.has(path)) fresh.push(path);
    const found = await amongView(this.view, fresh, this.pace);
    for await (const path of paced(fresh, this.pace)) this.present.set(path, found.has(path));
  }
}
