/**
 * Makes upstream build what was approved: in one request, unless outputs have to be complete before others
 * are built on them (G6), or the client wants to continue after a failure. Upstream is not told of
 * `keep-going`: the message for it carries settings that would override the daemon's own.
 */
import { printDerivedPath } from "../../policy/derived-path.ts";
import { BUILD_STATUS, type KeyedBuildResult } from "../../protocol/types.ts";
import { fromWireText } from "../../protocol/wire.ts";
import type { StorePath } from "../../store/store-path.ts";
import { Deadline } from "../deadline.ts";
import type { UpstreamConnection } from "../upstream/connection.ts";
import type { ApprovedRuns } from "./approve.ts";
import { culpritsOf, lastLines } from "./build-failure.ts";
import { climb, dependentsIn, inputsFirst, inputsIn, neededWithSandbox } from "./build-order.ts";
import { buildTimeout, silentTimeout, type Timeout } from "./build-timeouts.ts";
import { type BuildExchange, guarded } from "./exchange.ts";
import type { LogFilter } from "./log-filter.ts";

/** Outputs by their names, as upstream is asked for them. */
export interface NamedOutputs {
  readonly derivation: StorePath;
  readonly outputs: readonly string[];
}

/** How the build of a derivation's outputs ended. */
export type Outcome =
  | {
      readonly kind: "built";
      /** What upstream reported about it, if anything. */
      readonly told: KeyedBuildResult | undefined;
    }
  | Failed
  /** Upstream did not get to it, because something else had failed. */
  | { readonly kind: "left" };

/** Upstream's words for it are not for clients. */
export interface Failed {
  readonly kind: "failed";
  /** What its log says of failures, in one request for all that it asked for. */
  readonly complaints: string;
  /** Those that came while no build ran whose words are secret: it could have written them, about any other one. */
  readonly openComplaints: string;
  /** What it answered about this one. */
  readonly error: string;
  readonly timedOut: boolean;
}

/** By derivation. */
export type Outcomes = ReadonlyMap<StorePath, Outcome>;

export const LEFT: Outcome = { kind: "left" };
const COMPLAINT = /error|fail|cannot|cycle|mismatch|not allowed|unsupported|timed out|required/i;
/** Of complaints, what is kept: the last ones. Characters. */
const MOST_COMPLAINTS = 32 * 1024;
/** From this version on upstream reports how each of several builds ended. */
const RESULTS_SINCE = 34;

export class BuildRun {
  private readonly exchange: BuildExchange;
  private readonly upstream: UpstreamConnection;
  private readonly runs: ApprovedRuns;
  private readonly log: LogFilter;
  private readonly timeout: Timeout;
  private readonly started = performance.now();

  constructor(exchange: BuildExchange, upstream: UpstreamConnection, runs: ApprovedRuns, log: LogFilter) {
    this.exchange = exchange;
    this.upstream = upstream;
    this.runs = runs;
    this.log = log;
    this.timeout = buildTimeout(exchange);
  }

  /** @returns how each ended. @throws Refusal when upstream breaks off or takes too long */
  async build(targets: readonly NamedOutputs[]): Promise<Outcomes> {
    const { keepGoing } = this.exchange.options;
    for (const path of neededWithSandbox(this.runs)) {
      const outcome = await this.buildOne(path);
      if (outcome.kind !== "failed") continue;
      if (keepGoing) return this.buildEach(targets, new Map([[path, outcome]]));
      return this.failedBelow(targets, path, outcome);
    }
    const outcomes = await this.request(targets);
    const failed = [...outcomes].filter(([, { kind }]) => kind === "failed") as [StorePath, Failed][];
    if (!keepGoing || failed.length === 0) return outcomes;
    // What upstream did not get to is told as failed, too. So only what its words name has failed for sure, and need not fail
    // twice; the rest is tried by itself.
    const { pace } = this.exchange.sandbox;
    const outcomesOfFailed = failed.map(([, outcome]) => outcome);
    const culprits = await culpritsOf(this.runs, wordsOf(outcomesOfFailed), pace);
    // Secret words count for what fetches alone: whether that fails, the network decides anyway.
    const named = await culpritsOf(this.runs, new Set(outcomesOfFailed.map((one) => one.complaints)), pace);
    const failures = new Map<StorePath, Failed>();
    for (const [path, outcome] of failed) {
      const fetching = named.get(path)?.derivation;
      const culprit =
        culprits.get(path)?.derivation ??
        (fetching !== undefined && this.runs.get(fetching)?.fetches ? fetching : undefined);
      if (culprit !== undefined) failures.set(culprit, outcome);
      else if (outcome.timedOut || this.runs.size === 1) failures.set(path, outcome);
    }
    return this.buildEach(targets, failures);
  }

  /** Continues after failures: builds everything that does not depend on a failure. */
  private async buildEach(
    targets: readonly NamedOutputs[],
    failures: Map<StorePath, Failed>,
  ): Promise<Outcomes> {
    const outcomes = new Map<StorePath, Outcome>();
    for (const path of inputsFirst(this.runs)) {
      const failedInput = inputsIn(this.runs, path).find((input) => failures.has(input));
      const outcome =
        failures.get(path) ?? (failedInput ? failures.get(failedInput)! : await this.buildOne(path));
      outcomes.set(path, outcome);
      if (outcome.kind === "failed") failures.set(path, outcome);
    }
    const held = targets.filter(({ derivation }) => !this.runs.has(derivation));
    if (held.length > 0) for (const [path, outcome] of await this.request(held)) outcomes.set(path, outcome);
    return outcomes;
  }

  /** Builds one derivation that may run, whose inputs are there. Resolves when its outputs have all their references. */
  private async buildOne(path: StorePath): Promise<Outcome> {
    const { outputs, optsIn } = this.runs.get(path)!;
    const [outcome = LEFT] = (
      await this.request([{ derivation: path, outputs: [...outputs.keys()] }])
    ).values();
    if (outcome.kind === "built" && optsIn)
      await this.exchange.waits.released([...outputs.values()].filter((output) => output !== ""));
    return outcome;
  }

  /** Ends with the failure of one that some of the targets need; the others are left. */
  private async failedBelow(
    targets: readonly NamedOutputs[],
    path: StorePath,
    outcome: Failed,
  ): Promise<Outcomes> {
    const { pace } = this.exchange.sandbox;
    const stuck = new Set<StorePath>();
    const visit = (above: StorePath): boolean => !stuck.has(above) && Boolean(stuck.add(above));
    await climb(await dependentsIn(this.runs, pace), path, visit, pace);
    return new Map(targets.map(({ derivation }) => [derivation, stuck.has(derivation) ? outcome : LEFT]));
  }

  /** One request to upstream, within the remaining time. */
  private async request(wanted: readonly NamedOutputs[]): Promise<Outcomes> {
    const seconds = Math.max(0, this.timeout.seconds - (performance.now() - this.started) / 1000);
    return guarded(this.exchange, this.upstream, { ...this.timeout, seconds }, () => this.ask(wanted));
  }

  private async ask(wanted: readonly NamedOutputs[]): Promise<Outcomes> {
    const { upstream, log } = this;
    const { minor } = upstream.table;
    const printed = wanted.map((target) => printDerivedPath({ kind: "outputs", ...target }, minor));
    const operation = minor >= RESULTS_SINCE ? "BuildPathsWithResults" : "BuildPaths";
    void upstream.send(operation, { paths: printed, mode: 0 });
    const silent = silentTimeout(this.exchange);
    const silence = new Deadline(silent.seconds, () => upstream.destroy());
    // Of what failed below what was asked for, upstream tells in its log alone.
    const said = { complaints: "", openComplaints: "" };
    const keep = (kept: string, text: string): string =>
      lastLines(`${kept}${fromWireText(text)}\n`, MOST_COMPLAINTS);
    try {
      const refused = await upstream.outcome({
        log(message) {
          silence.alive();
          if (message.kind !== "text") log.take(message);
          else if (COMPLAINT.test(message.text)) {
            said.complaints = keep(said.complaints, message.text);
            if (!log.hearsSecrets) said.openComplaints = keep(said.openComplaints, message.text);
          }
        },
      });
      log.finish();
      if (refused !== undefined) return each(wanted, () => failed(said, refused, false));
      if (operation === "BuildPathsWithResults") {
        const results = new Map((await upstream.reply(operation)).map((result) => [result.path, result]));
        return each(wanted, (i) => outcomeOf(results.get(printed[i]!), said));
      }
      await upstream.reply(operation);
      return each(wanted, () => ({ kind: "built", told: undefined }));
    } catch (error) {
      throw silence.passed ? silent.refusal() : error;
    } finally {
      silence.clear();
    }
  }
}

function each(wanted: readonly NamedOutputs[], outcome: (index: number) => Outcome): Outcomes {
  return new Map(wanted.map(({ derivation }, i) => [derivation, outcome(i)]));
}

type Said = Pick<Failed, "complaints" | "openComplaints">;

function failed(said: Said, error: string, timedOut: boolean): Failed {
  return { kind: "failed", ...said, error, timedOut };
}

/** What upstream said of these and no builder whose words are secret, each text once. */
export function wordsOf(failures: readonly Failed[]): Set<string> {
  return new Set([
    ...failures.map(({ openComplaints }) => openComplaints),
    ...failures.map(({ error }) => error),
  ]);
}

function outcomeOf(result: KeyedBuildResult | undefined, said: Said): Outcome {
  if (!result) return LEFT;
  if (SUCCESS.has(result.status)) return { kind: "built", told: result };
  return failed(said, fromWireText(result.error), result.status === BUILD_STATUS.timedOut);
}

const SUCCESS: ReadonlySet<number> = new Set([
  BUILD_STATUS.built,
  BUILD_STATUS.substituted,
  BUILD_STATUS.alreadyValid,
  BUILD_STATUS.resolvesToAlreadyValid,
]);
