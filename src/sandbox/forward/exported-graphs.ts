/**
 * With `exportReferencesGraph` over a closure that has a derivation in it, Nix adds that derivation's outputs
 * to the graph if they exist (`exportReferences` in src/libstore/misc.cc and similar code): this would reveal
 * what the host has built. Only what could make such a graph is refused.
 */
import type { Derivation } from "../../store/derivation.ts";
import { isDerivationPath, isStorePath, type StorePath } from "../../store/store-path.ts";
import type { JsonValue } from "../../store/structured-attributes.ts";
import type { Sandbox } from "../sandbox.ts";
import { type ApprovedRuns, refused } from "./approve.ts";

const ATTRIBUTE = "exportReferencesGraph";

/** @throws Refusal naming a derivation that may run and asks for such a graph */
export async function refuseExportedGraphs(sandbox: Sandbox, runs: ApprovedRuns): Promise<void> {
  // If the view is the whole store, there is nothing that the graph could reveal.
  if (!sandbox.view.closed) return;
  for (const [path, { exportsGraphs }] of runs) {
    if (!exportsGraphs) continue;
    const reason = await new GraphCheck(sandbox, runs).refuse(path);
    if (reason !== undefined) throw refused(path, `it sets exportReferencesGraph, and ${reason}`);
  }
}

class GraphCheck {
  private readonly sandbox: Sandbox;
  private readonly runs: ApprovedRuns;
  /** The derivation of an output that is still to be built. */
  private readonly makers = new Map<StorePath, StorePath>();
  private readonly pending: StorePath[] = [];
  private readonly visited = new Set<StorePath>();
  /** Derivations whose inputs were added. */
  private readonly made = new Set<StorePath>();
  /** A derivation whose outputs may refer to anything. */
  private unknown: StorePath | undefined;

  constructor(sandbox: Sandbox, runs: ApprovedRuns) {
    this.sandbox = sandbox;
    this.runs = runs;
    for (const [path, { outputs }] of runs)
      for (const output of outputs.values()) if (output !== "") this.makers.set(output, path);
  }

  /** @returns why the graphs of this derivation could list another one, or undefined */
  async refuse(exporting: StorePath): Promise<string | undefined> {
    const derivation = await this.read(exporting);
    const named = this.namedPaths(derivation);
    this.made.add(exporting);
    if (named) this.pending.push(...named);
    else await this.addInputs(derivation);
    for (let path = this.pending.pop(); path !== undefined; path = this.pending.pop()) {
      if (this.sandbox.pace.due) await this.sandbox.pace.pause();
      if (this.visited.has(path)) continue;
      this.visited.add(path);
      if (isDerivationPath(path)) return `'${path}' is in a closure that it could list`;
      const info = await this.sandbox.view.info(path);
      const maker = this.makers.get(path);
      if (info) for (const reference of info.references) this.pending.push(reference);
      else if (maker !== undefined) await this.addMaker(maker);
      if (this.unknown !== undefined)
        return `'${this.unknown}' among its inputs may make outputs that refer to derivations: build that one first`;
    }
    return undefined;
  }

  /** An output that is still to be built may refer to everything that its derivation reads. */
  private async addMaker(path: StorePath): Promise<void> {
    if (this.made.has(path)) return;
    this.made.add(path);
    // Its clients may add derivations, and its output may mention them.
    if (this.runs.get(path)?.optsIn) this.unknown = path;
    else await this.addInputs(await this.read(path));
  }

  private async addInputs({ inputSrcs, inputDrvs }: Derivation): Promise<void> {
    for (const input of inputSrcs) this.pending.push(input);
    for (const [path, names] of inputDrvs) {
      const outputs = this.runs.get(path)?.outputs ?? (await this.sandbox.view.outputs(path, this));
      for (const name of names) {
        const output = outputs?.get(name);
        if (output) this.pending.push(output);
        else await this.addMaker(path);
      }
    }
  }

  private async read(path: StorePath): Promise<Derivation> {
    const derivation = await this.sandbox.view.derivation(path);
    if (!derivation) throw refused(path, "it is not a derivation");
    return derivation;
  }

  /**
   * The paths whose closures are exported, if all of them are known: `name path …` in the environment,
   * `{ name = path or [ path … ]; }` in the structured attributes.
   */
  private namedPaths({ attributes }: Derivation): StorePath[] | undefined {
    const { storeDir } = this.sandbox.view;
    const words = (attributes.variable(ATTRIBUTE) ?? "").split(/[ \t\n\r]+/).filter((word) => word !== "");
    const graphs = attributes.structured(ATTRIBUTE);
    const named = words.filter((_, i) => i % 2 === 1);
    if (graphs !== undefined) named.push(...stringsIn(graphs));
    // A file in a path stands for the path.
    const depth = storeDir.split("/").length + 1;
    const paths = named.map((text) => text.split("/", depth).join("/"));
    const known = paths.every((path) => isStorePath(path, storeDir) && this.couldBeRead(path));
    return paths.length > 0 && known ? paths : undefined;
  }

  /** A path of the view, or one that this request makes. Anything else is known only after a build. */
  private couldBeRead(path: StorePath): boolean {
    return this.makers.has(path) || this.sandbox.view.info(path) !== undefined;
  }
}

/** Up to 2.26 Nix takes the values of an object, too, as if it were a list. */
function stringsIn(value: JsonValue): string[] {
  if (typeof value === "string") return [value];
  if (value instanceof Map) return [...value.values()].flatMap(stringsIn);
  return Array.isArray(value) ? value.flatMap(stringsIn) : [];
}
