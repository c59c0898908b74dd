/**
 * Which derivations a build request may run (docs/approval.md has the argument). Only what may run is judged:
 * the walk starts with what is asked for, skips what is held, judges the rest, and continues with its inputs.
 *
 * - A daemon builds a derivation only if a wanted output is not valid. So outputs are looked at one by one,
 *   and if more outputs of a derivation are wanted later, those are looked at, too.
 * - What was skipped is not remembered as approved: the next request checks again.
 * - Floating and deferred outputs have no path yet, so they never end the walk.
 */
import {
  isFixedOutput,
  optsIn,
  refuseFixedOutput,
  refuseFixedPath,
  refuseInputs,
  refuseToRun,
} from "../../policy/derivation-rules.ts";
import {
  infoInView,
  type MaybePromise,
  NotInView,
  type PathInfo,
  staticOutputs,
} from "../../policy/view-queries.ts";
import { WantedOutputs as Wanted, type WantedNames } from "../../policy/wanted-outputs.ts";
import { printContentAddress } from "../../store/content-address.ts";
import { type Derivation, DerivationError, fixedOutputAddress, outputKind } from "../../store/derivation.ts";
import { type Pace, paced } from "../../store/slices.ts";
import { type StorePath, storePathName } from "../../store/store-path.ts";
import { Refusal } from "../refusal.ts";
import type { Sandbox } from "../sandbox.ts";
import { SharedValues } from "../shared-values.ts";
import { refuseExportedGraphs } from "./exported-graphs.ts";
import type { HeldOutputs } from "./held-outputs.ts";

/** A derivation that a request may run, as it is kept until the build ends. */
export interface Approved {
  /** Every output by name; "" where the path is known only after the build. */
  readonly outputs: ReadonlyMap<string, StorePath | "">;
  /** Its input derivations. */
  readonly inputs: readonly StorePath[];
  /** Whether it fetches. */
  readonly fetches: boolean;
  /** The content address of its one output, if that is fixed. */
  readonly contentAddress: string;
  /** Whether it asks for a sandbox of its own. */
  readonly optsIn: boolean;
  readonly exportsGraphs: boolean;
}

/** By path, what needs others before these. */
export type ApprovedRuns = ReadonlyMap<StorePath, Approved>;

/** Wanted outputs of a derivation; all of them if no names are given. */
export interface WantedOutputs {
  readonly derivation: StorePath;
  readonly outputs: readonly string[] | undefined;
}

export interface Approval {
  readonly runs: ApprovedRuns;
  /** The outputs of each derivation that was asked for, as `Approved.outputs`. */
  readonly asked: ReadonlyMap<StorePath, Approved["outputs"]>;
  /** To be called when the request is over. */
  release(): Promise<void>;
}

/**
 * What requests in progress keep of the derivations that may run. A path determines the text, so it is the same for all of
 * them: one that is asked for again and again takes no more memory (G8).
 */
export const sharedRuns = new SharedValues<StorePath, Approved>();

/** @throws Refusal naming the derivation and the rule; NotInView */
export async function approve(
  sandbox: Sandbox,
  held: HeldOutputs,
  targets: readonly WantedOutputs[],
): Promise<Approval> {
  const walk = new Walk(sandbox, held);
  const release = releaseOf(walk.runs, sandbox.pace);
  try {
    const wanted = byDerivation(targets);
    await requireKept(held, [...wanted.keys()]);
    for (let level = wanted; level.size > 0; ) level = await walk.look(level);
    await refuseExportedGraphs(sandbox, walk.runs);
    await held.settled();
  } catch (error) {
    await release();
    throw error;
  }
  return {
    runs: walk.runs,
    asked: new Map(targets.map(({ derivation }) => [derivation, walk.outputsOf(derivation)])),
    release,
  };
}

/** Apart from the walk: this would keep all of it until the request is over. */
function releaseOf(runs: ApprovedRuns, pace: Pace): () => Promise<void> {
  return async () => {
    for (const path of runs.keys()) {
      sharedRuns.release(path);
      if (pace.due) await pace.pause();
    }
  };
}

/** What they need is in their closures, and so kept with them: nothing more has to be asked about derivations. @throws NotInView */
async function requireKept(held: HeldOutputs, derivations: readonly StorePath[]): Promise<void> {
  const kept = await held.keep(derivations);
  for (const path of derivations) if (!kept.has(path)) throw new NotInView(path);
}

/** How many derivations are read at once, and held in memory until they are judged. */
const READ_AT_ONCE = 16;
/** How many are looked at, at once, of those that need not be read. */
const LOOKED_AT_AT_ONCE = 256;

interface Read {
  readonly path: StorePath;
  readonly derivation: Derivation;
  /** The wanted outputs that have not been looked at before. */
  readonly fresh: readonly string[];
}

type WantedEntry = readonly [StorePath, ReadonlySet<string> | undefined];

class Walk {
  readonly runs = new Map<StorePath, Approved>();
  private readonly sandbox: Sandbox;
  private readonly held: HeldOutputs;
  private readonly outputs = new Map<StorePath, Approved["outputs"]>();
  /** Every path once: many derivations may have the same ones as inputs, and each was read with its own text. */
  private readonly paths = new Map<StorePath, StorePath>();
  /** The outputs that were found to be held, by derivation. */
  private readonly skipped = new Map<StorePath, Set<string>>();

  constructor(sandbox: Sandbox, held: HeldOutputs) {
    this.sandbox = sandbox;
    this.held = held;
  }

  outputsOf(derivation: StorePath): Approved["outputs"] {
    return this.outputs.get(derivation) ?? new Map();
  }

  /** @returns what those of these derivations that have to run need */
  async look(wanted: WantedNames): Promise<WantedNames> {
    const { pace } = this.sandbox;
    const unread: WantedEntry[] = [];
    for await (const entry of paced(wanted, pace)) if (!this.isSettled(...entry)) unread.push(entry);
    const next = new Wanted();
    for (let i = 0; i < unread.length; ) {
      const piece = this.piece(unread, i);
      i += piece.length;
      const read = await Promise.all(piece.map(([path, names]) => this.read(path, names)));
      const missing = await this.missing(read);
      const infos = await Promise.all(missing.map(({ path }) => this.infoToJudge(path)));
      for (const [at, entry] of missing.entries()) {
        const judged = judge(this.sandbox, entry, infos[at]);
        this.held.readToo(entry.derivation.inputSrcs);
        const inputs: StorePath[] = [];
        for (const [path, names] of entry.derivation.inputDrvs) {
          const input = this.once(path);
          inputs.push(input);
          next.add(input, names);
        }
        this.runs.set(...sharedRuns.hold(entry.path, { ...judged, inputs }));
        if (pace.due) await pace.pause();
      }
    }
    return next.byDerivation;
  }

  /** As many as may be held in memory at once. */
  private piece(unread: readonly WantedEntry[], from: number): WantedEntry[] {
    const { view } = this.sandbox;
    let left = READ_AT_ONCE;
    let end = from;
    const most = Math.min(unread.length, from + LOOKED_AT_AT_ONCE);
    while (end < most && (view.remembered(unread[end]![0]) || left-- > 0)) end++;
    return unread.slice(from, end);
  }

  private once(path: StorePath): StorePath {
    const known = this.paths.get(path);
    if (known !== undefined) return known;
    this.paths.set(path, path);
    return path;
  }

  /** Whether everything is known about these outputs: their derivation was judged, or they were found to be held. */
  private isSettled(path: StorePath, names: ReadonlySet<string> | undefined): boolean {
    const outputs = this.outputs.get(path);
    if (!outputs) return false;
    for (const name of names ?? []) requireOutput(path, outputs, name);
    const skipped = this.skipped.get(path);
    return this.runs.has(path) || [...(names ?? outputs.keys())].every((name) => skipped?.has(name));
  }

  private async read(path: StorePath, names: ReadonlySet<string> | undefined): Promise<Read> {
    const derivation = await this.derivation(path);
    if (!derivation) throw refused(path, "it is not a derivation");
    const reason = refuseFixedPath(derivation, this.sandbox.view.storeDir, storePathName(path));
    if (reason !== undefined) throw refused(path, reason);
    const outputs = staticOutputs(derivation);
    for (const name of names ?? []) requireOutput(path, outputs, name);
    this.outputs.set(path, outputs);
    if (isFixedOutput(derivation)) await this.sandbox.admitFixedOutputs([...outputs.values()]);
    const skipped = this.skipped.get(path);
    const fresh = [...(names ?? outputs.keys())].filter((name) => !skipped?.has(name));
    return { path, derivation, fresh };
  }

  /** Undefined for one that was judged before. */
  private infoToJudge(path: StorePath): MaybePromise<PathInfo | undefined> {
    const { approved, view } = this.sandbox;
    return approved.has(path) ? undefined : infoInView(path, view);
  }

  /** It is kept until the request is over, so whether it is there is known. */
  private async derivation(path: StorePath): Promise<Derivation | undefined> {
    const { view } = this.sandbox;
    try {
      return view.remembered(path) ?? (await view.derivation(path));
    } catch (error) {
      throw error instanceof DerivationError ? refused(path, error.message) : error;
    }
  }

  /** Those of which a wanted output is not held, after fetching what upstream can fetch. */
  private async missing(read: readonly Read[]): Promise<Read[]> {
    const paths = read.flatMap(({ path, fresh }) =>
      fresh.map((name) => this.outputsOf(path).get(name) ?? ""),
    );
    const known = paths.filter((path) => path !== "");
    const held = new Set(await this.held.among(known));
    const absent = known.filter((path) => !held.has(path));
    if (await this.held.fetch(absent)) for (const path of await this.held.among(absent)) held.add(path);
    const fetched = read.filter((entry) => this.isFetchedHere(entry, held));
    await this.held.download(fetched);
    if (fetched.length > 0)
      for (const path of await this.held.among(
        fetched.flatMap(({ path }) => [...this.outputsOf(path).values()]),
      ))
        held.add(path);
    const missing: Read[] = [];
    for (const entry of read) {
      const skipped = this.skipped.get(entry.path) ?? new Set();
      this.skipped.set(entry.path, skipped);
      for (const name of entry.fresh)
        if (held.has(this.outputsOf(entry.path).get(name) ?? "")) skipped.add(name);
      if (!entry.fresh.every((name) => skipped.has(name))) missing.push(entry);
    }
    return missing;
  }

  private isFetchedHere({ path, derivation, fresh }: Read, held: ReadonlySet<StorePath>): boolean {
    return (
      typeof this.sandbox.profile.fixedOutputs !== "string" &&
      isFixedOutput(derivation) &&
      fresh.some((name) => !held.has(this.outputsOf(path).get(name) ?? ""))
    );
  }
}

/** The names of all wanted outputs of each; undefined for all that it has. */
export function byDerivation(wanted: readonly WantedOutputs[]): WantedNames {
  const names = new Wanted();
  for (const { derivation, outputs } of wanted) names.add(derivation, outputs);
  return names.byDerivation;
}

/** Some daemons treat an unknown output as built, others build all outputs. @throws Refusal */
function requireOutput(path: StorePath, outputs: Approved["outputs"], name: string): void {
  if (!outputs.has(name)) throw new Refusal(`derivation '${path}' has no output '${name.slice(0, 200)}'`);
}

/** @param info undefined if it was judged before */
function judge(
  { profile, approved }: Sandbox,
  { path, derivation }: Read,
  info: PathInfo | undefined,
): Omit<Approved, "inputs"> {
  if (!approved.has(path)) {
    if (!info?.contentAddress.startsWith("text:sha256:")) throw refused(path, "it was not added as a text");
    const reason = refuseInputs(derivation, info.references) ?? refuseToRun(derivation, profile);
    if (reason !== undefined) throw refused(path, reason);
    approved.add(path);
  }
  const outputs = staticOutputs(derivation);
  const asksForSandbox = optsIn(derivation);
  const deferred = [...derivation.outputs.values()].some((output) => outputKind(output) === "deferred");
  if (deferred && asksForSandbox) throw refused(path, DEFERRED_WITH_SANDBOX);
  const reason = refuseFixedOutput(derivation, profile);
  if (reason !== undefined) throw refused(path, reason);
  return {
    outputs,
    fetches: isFixedOutput(derivation),
    contentAddress: fixedAddress(derivation),
    optsIn: asksForSandbox,
    exportsGraphs: derivation.attributes.has("exportReferencesGraph"),
  };
}

function fixedAddress({ outputs }: Derivation): string {
  const [address] = [...outputs.values()].map(fixedOutputAddress);
  return address ? printContentAddress(address) : "";
}

/**
 * Upstream resolves such a derivation into another one, whose outputs it locks: these are not known here, so
 * there would be no way to tell who would wait for whom.
 */
const DEFERRED_WITH_SANDBOX =
  "it asks for nix-broker, and its output paths are not known before its content-addressed inputs are built; give it ordinary inputs, or drop the system feature";

export function refused(path: StorePath, reason: string): Refusal {
  return new Refusal(`derivation '${path}' may not be built here: ${reason}`);
}
