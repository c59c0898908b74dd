/**
 * QueryMissing, answered from the view: paths in it are there, the outputs of its derivations would be built,
 * anything else is unknown. What upstream has or could fetch does not matter (G1).
 *
 * A request can name one derivation half a million times. So each derivation is asked about once, and once it is to be built
 * nothing more that is wanted of it changes the answer.
 */
import type { ReplyOf } from "../protocol/operations.ts";
import { type Pace, paced } from "../store/slices.ts";
import type { StorePath } from "../store/store-path.ts";
import { parseDerivedPath } from "./derived-path.ts";
import type { ViewQueries } from "./view-queries.ts";

export async function queryMissing(
  targets: readonly string[],
  view: ViewQueries,
  minor: number,
  pace: Pace,
): Promise<ReplyOf<"QueryMissing">> {
  const missing = new Missing(view, pace);
  for await (const target of paced(targets, pace)) {
    const path = parseDerivedPath(target, minor, view.storeDir);
    if (path?.kind === "path") await missing.wantPath(path.path);
    if (path?.kind === "outputs") await missing.wantOutputs(path.derivation, path.outputs);
  }
  return {
    willBuild: [...missing.willBuild],
    willSubstitute: [],
    unknown: [...missing.unknown],
    downloadSize: 0,
    narSize: 0,
  };
}

/** Names of outputs, and whether they are in the view. */
type Outputs = ReadonlyMap<string, boolean>;

class Missing {
  readonly willBuild = new Set<StorePath>();
  readonly unknown = new Set<StorePath>();
  private readonly view: ViewQueries;
  private readonly pace: Pace;
  /** Of the derivations that were asked about; undefined for one that is not in the view. */
  private readonly outputsOf = new Map<StorePath, Outputs | undefined>();

  constructor(view: ViewQueries, pace: Pace) {
    this.view = view;
    this.pace = pace;
  }

  async wantPath(path: StorePath): Promise<void> {
    if (!(await this.view.info(path))) this.unknown.add(path);
  }

  /** @param names undefined for all of them */
  async wantOutputs(derivation: StorePath, names: readonly string[] | undefined): Promise<void> {
    const pending = [{ derivation, names }];
    for (let next = pending.pop(); next; next = pending.pop()) {
      if (!(await this.mustBuild(next.derivation, next.names))) continue;
      this.willBuild.add(next.derivation);
      const parsed = await this.view.derivation(next.derivation);
      const inputs = parsed?.inputDrvs ?? [];
      for await (const [input, wanted] of paced(inputs, this.pace))
        pending.push({ derivation: input, names: wanted });
    }
  }

  /** Whether that is news. */
  private async mustBuild(derivation: StorePath, names: readonly string[] | undefined): Promise<boolean> {
    if (this.pace.due) await this.pace.pause();
    if (this.willBuild.has(derivation)) return false;
    if (!this.outputsOf.has(derivation)) this.outputsOf.set(derivation, await this.askOutputs(derivation));
    const outputs = this.outputsOf.get(derivation);
    if (!outputs) {
      this.unknown.add(derivation);
      return false;
    }
    for (const name of names ?? outputs.keys()) if (!outputs.get(name)) return true;
    return false;
  }

  private async askOutputs(derivation: StorePath): Promise<Outputs | undefined> {
    const paths = await this.view.outputs(derivation);
    if (!paths) return undefined;
    const outputs = new Map<string, boolean>();
    for await (const [name, path] of paced(paths, this.pace))
      outputs.set(name, path !== "" && (await this.view.info(path)) !== undefined);
    return outputs;
  }
}
