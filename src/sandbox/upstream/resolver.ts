/**
 * What content-addressed derivations resolve to, for daemons of 2.35 and later: those keep realisations of resolved
 * derivations only, and clients work out for themselves what theirs resolve to. So does this, for clients of all versions, and
 * to tell which realisations belong to derivations that a sandbox has (G1).
 */
import type { ReplyOf, RequestOf } from "../../protocol/operations.ts";
import { type Derivation, outputKind } from "../../store/derivation.ts";
import { type Resolved, resolve } from "../../store/resolution.ts";
import type { Pace } from "../../store/slices.ts";
import type { StorePath } from "../../store/store-path.ts";

/** Longer ones are not resolved: that is done in one go. Bytes. */
const LONGEST_TEXT = 1024 * 1024;

/** Of the text of a derivation that counts as looking at one more. Bytes. */
const TEXT_OF_ONE = 16 * 1024;

/** What it asks upstream. */
export interface Realisations {
  derivation(path: StorePath): Promise<Derivation>;
  /** @returns undefined where it is longer than that */
  text(path: StorePath, longest: number): Promise<string | undefined>;
  realisation(request: RequestOf<"QueryRealisation">): Promise<ReplyOf<"QueryRealisation">>;
}

export interface Resolution {
  /** Every output by name; "" where it is not built. */
  readonly outputs: ReadonlyMap<string, StorePath | "">;
  /** The derivation that it resolves to, which may be itself; undefined while an input is not built. */
  readonly resolved: StorePath | undefined;
}

export interface ResolverOptions {
  readonly pace: Pace;
  /** How many derivations it looks at; what it had to look at beyond that counts as not built. */
  readonly most: number;
  /** Outputs that need not be asked for. */
  known(derivation: StorePath): ReadonlyMap<string, StorePath | ""> | undefined;
}

const NOT_LOOKED_AT: Resolution = { outputs: new Map(), resolved: undefined };

/** For one question of a client, which may name a derivation above any number of others: each is looked at once. */
export class Resolver {
  private readonly upstream: Realisations;
  private readonly options: ResolverOptions;
  private readonly found = new Map<StorePath, Promise<Resolution>>();
  private looked = 0;

  constructor(upstream: Realisations, options: ResolverOptions) {
    this.upstream = upstream;
    this.options = options;
  }

  /** Whether it looks at no more derivations. */
  get exhausted(): boolean {
    return this.looked >= this.options.most;
  }

  /** @throws UpstreamError, UpstreamRefusal, DerivationError */
  resolution(path: StorePath): Promise<Resolution> {
    let found = this.found.get(path);
    if (!found) {
      found = this.resolve(path);
      this.found.set(path, found);
    }
    return found;
  }

  private async resolve(path: StorePath): Promise<Resolution> {
    if (this.exhausted) return NOT_LOOKED_AT;
    this.looked++;
    const { pace } = this.options;
    if (pace.due) await pace.pause();
    const { outputs, inputDrvs, inputSrcs } = await this.upstream.derivation(path);
    const found = new Map<string, StorePath | "">([...outputs].map(([name, output]) => [name, output.path]));
    if (![...found.values()].includes("")) return { outputs: found, resolved: undefined };
    const built = await this.builtInputs(inputDrvs);
    const text = built && built.size > 0 ? await this.upstream.text(path, LONGEST_TEXT) : undefined;
    this.looked += Math.floor((text?.length ?? 0) / TEXT_OF_ONE);
    if (!built || (built.size > 0 && text === undefined)) return { outputs: found, resolved: undefined };
    const made: Resolved | undefined = text === undefined ? undefined : resolve(path, text, inputSrcs, built);
    const derivation = made?.path ?? path;
    for (const [name, output] of outputs)
      if (output.path === "")
        found.set(
          name,
          made && outputKind(output) === "deferred"
            ? made.deferredOutput(name)
            : await this.realised(derivation, name),
        );
    return { outputs: found, resolved: derivation };
  }

  /** @returns undefined where one of them is not built */
  private async builtInputs(
    inputs: Derivation["inputDrvs"],
  ): Promise<Map<StorePath, Map<string, StorePath>> | undefined> {
    const built = new Map<StorePath, Map<string, StorePath>>();
    for (const [input, names] of inputs) {
      const outputs = this.options.known(input) ?? (await this.resolution(input)).outputs;
      const wanted = new Map<string, StorePath>();
      for (const name of names) {
        const output = outputs.get(name) ?? "";
        if (output === "") return undefined;
        wanted.set(name, output);
      }
      built.set(input, wanted);
    }
    return built;
  }

  private async realised(derivation: StorePath, output: string): Promise<StorePath | ""> {
    const reply = await this.upstream.realisation({ output: { derivation, output } });
    return reply === undefined || Array.isArray(reply) ? "" : reply.path;
  }
}
