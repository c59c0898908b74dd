/**
 * What a client may know about a build: success or failure, its outputs, and how its own builder failed; but
 * not how else, where, when and by whom (G3). Upstream's messages go to the audit.
 */
import { BUILD_STATUS, type KeyedBuildResult } from "../../protocol/types.ts";
import { toWireText } from "../../protocol/wire.ts";
import { paced } from "../../store/slices.ts";
import { isStorePath, type StorePath } from "../../store/store-path.ts";
import type { BuildFailure } from "../detail.ts";
import { Refusal } from "../refusal.ts";
import type { ApprovedRuns } from "./approve.ts";
import { type Culprit, culpritsOf } from "./build-failure.ts";
import { type Failed, LEFT, type Outcome, type Outcomes, wordsOf } from "./build-run.ts";
import type { Target } from "./build-targets.ts";
import type { BuildExchange, Exchange } from "./exchange.ts";
import type { LogTails } from "./log-tails.ts";
import { censorRealisation } from "./read.ts";

type Status = (typeof BUILD_STATUS)[keyof typeof BUILD_STATUS];

/** For the audit of a request whose build failed. */
const BUILD_FAILED = "the build failed";
/** As the daemon has it: nix-build ends with 100 when a build failed (src/libstore/build.cc, 2.3). */
const BUILD_FAILED_STATUS = 100;

/** How the builds of a request ended, and which could run for it. */
export interface Built {
  readonly outcomes: Outcomes;
  readonly runs: ApprovedRuns;
  /** Of the lines that the client was shown. */
  readonly tails: LogTails;
}

/** For an operation that does not report single results. @throws Refusal if anything was not built */
export async function requireAllBuilt(
  exchange: BuildExchange,
  { outcomes, runs, tails }: Built,
): Promise<void> {
  const failed = [...outcomes].filter(([, { kind }]) => kind !== "built").map(([path]) => path);
  if (failed.length === 0) return;
  const failures = failuresAmong(outcomes);
  const culprits = await culpritsOf(runs, wordsOf(failures), exchange.sandbox.pace);
  const { text, derivation } = await explained(exchange, failed, runs, culprits);
  throw new Refusal(`${text}${tails.textOf(derivation)}`, {
    verdict: "forward",
    reason: BUILD_FAILED,
    upstreamError: failures[0] ? upstreamErrorOf(failures[0]) : "",
    upstreamInStep: true,
    status: BUILD_FAILED_STATUS,
  });
}

function failuresAmong(outcomes: Outcomes): Failed[] {
  return [...outcomes.values()].filter((outcome) => outcome.kind === "failed");
}

/** Upstream's words, for the audit. */
function upstreamErrorOf({ complaints, error }: Failed): string {
  return `${complaints}${error}`;
}

/** What a client is told of a failure. */
interface Explained {
  readonly text: string;
  /** The one that failed, as far as the client may know. */
  readonly derivation: StorePath | undefined;
}

/**
 * Which builder failed and how, where that is no secret: in a closed view not of what fetches, and nothing with
 * `inner_logs = "none"`.
 */
async function explained(
  { sandbox: { view, profile } }: Exchange,
  derivations: readonly StorePath[],
  runs: ApprovedRuns,
  culprits: ReadonlyMap<StorePath, Culprit>,
): Promise<Explained> {
  const text = `build of ${derivations.map((path) => `'${path}'`).join(", ")} failed`;
  if (profile.innerLogs === "none") return { text, derivation: undefined };
  for (const target of derivations) {
    const culprit = culprits.get(target);
    if (!culprit || (view.closed && runs.get(culprit.derivation)?.fetches)) continue;
    const { what, paths } = culprit.failure;
    const known = await Promise.all(
      paths.map(
        (path) => culprit.ownPaths.includes(path) || (isStorePath(path, view.storeDir) && view.info(path)),
      ),
    );
    const named = paths.filter((_, i) => known[i]);
    const list = named.length > 0 ? `: ${named.join(", ")}` : "";
    const { derivation } = culprit;
    return { text: `${text}: the builder of '${derivation}' ${what}${list}`, derivation };
  }
  return { text, derivation: undefined };
}

/** Failures of one request that its record names; the others are counted. */
const MOST_FAILURES = 32;
/** For each text of a failure, in characters: together they fit into a record, whatever a client asks for. */
const LONGEST_FAILURE_TEXT = 500;

/** The reply to a request: one result for each target, in the client's terms; failures are noted in the exchange. */
export async function censoredResults(
  exchange: Exchange<"BuildPathsWithResults">,
  targets: readonly Target[],
  built: Built,
): Promise<KeyedBuildResult[]> {
  const { outcomes, runs } = built;
  const results: KeyedBuildResult[] = [];
  const culprits = await culpritsOf(runs, wordsOf(failuresAmong(outcomes)), exchange.sandbox.pace);
  for await (const { asked, wanted } of paced(targets, exchange.sandbox.pace)) {
    const outcome = wanted && (outcomes.get(wanted.derivation) ?? LEFT);
    if (!outcome) results.push(builtResult(asked));
    else if (outcome.kind === "built")
      results.push({ ...builtResult(asked), builtOutputs: await censoredOutputs(exchange, outcome) });
    else results.push(await failedResult(exchange, asked, wanted.derivation, built, outcome, culprits));
  }
  return results;
}

async function failedResult(
  exchange: Exchange<"BuildPathsWithResults">,
  asked: string,
  derivation: StorePath,
  { runs, tails }: Built,
  outcome: Exclude<Outcome, { kind: "built" }>,
  culprits: ReadonlyMap<StorePath, Culprit>,
): Promise<KeyedBuildResult> {
  if (outcome.kind === "left") {
    const reason = `'${asked}' was not built`;
    noteFailure(exchange, { path: asked, reason });
    return resultOf(asked, BUILD_STATUS.permanentFailure, reason);
  }
  const { text: reason, derivation: culprit } = await explained(exchange, [derivation], runs, culprits);
  noteFailure(exchange, { path: asked, reason, upstreamError: upstreamErrorOf(outcome) });
  const status = outcome.timedOut ? BUILD_STATUS.timedOut : BUILD_STATUS.permanentFailure;
  return resultOf(asked, status, toWireText(`${reason}${tails.textOf(culprit)}`));
}

function noteFailure(exchange: Exchange<"BuildPathsWithResults">, failure: BuildFailure): void {
  const { detail } = exchange;
  const upstreamError = exchange.failed?.upstreamError ?? failure.upstreamError;
  exchange.failed = { reason: BUILD_FAILED, upstreamError };
  const noted = detail.failures ?? [];
  if (noted.length < MOST_FAILURES) detail.failures = [...noted, shortened(failure)];
  else detail.failuresOmitted = (detail.failuresOmitted ?? 0) + 1;
}

function shortened({ path, reason, upstreamError }: BuildFailure): BuildFailure {
  return {
    path: shortText(path),
    reason: shortText(reason),
    ...(upstreamError !== undefined && { upstreamError: shortText(upstreamError) }),
  };
}

function shortText(text: string): string {
  return text.length > LONGEST_FAILURE_TEXT ? `${text.slice(0, LONGEST_FAILURE_TEXT)}…` : text;
}

/** Existing outputs, whoever built them and whenever. */
function builtResult(asked: string): KeyedBuildResult {
  return resultOf(asked, BUILD_STATUS.built, "");
}

function resultOf(path: string, status: Status, error: string): KeyedBuildResult {
  return {
    path,
    status,
    error,
    timesBuilt: 0,
    nonDeterministic: false,
    startTime: 0,
    stopTime: 0,
    cpuUser: undefined,
    cpuSystem: undefined,
    builtOutputs: new Map(),
  };
}

/** What upstream reported about the outputs that it built, in the form of its dialect. */
type ReportedOutputs = NonNullable<KeyedBuildResult["builtOutputs"]>;

async function censoredOutputs(
  { sandbox: { view } }: Exchange,
  { told }: Extract<Outcome, { kind: "built" }>,
): Promise<ReportedOutputs> {
  const outputs = new Map<string, string | { path: string; signatures: string[] }>();
  for (const [key, output] of told?.builtOutputs ?? []) {
    const censored = censoredOutput(output, view.storeDir);
    if (censored && (await view.info(censored.path))) outputs.set(key, censored.text);
  }
  // One form or the other, depending on the dialect: never both.
  return outputs as ReportedOutputs;
}

function censoredOutput(output: string | { readonly path: StorePath }, storeDir: string) {
  return typeof output === "string"
    ? censorRealisation(output, storeDir)
    : { path: output.path, text: { path: output.path, signatures: [] } };
}

/** The outputs that upstream told of by hashes of their derivations. */
export function realisedBy(outcome: Outcome): string[] {
  if (outcome.kind !== "built") return [];
  return [...(outcome.told?.builtOutputs ?? [])].flatMap(([id, output]) =>
    typeof output === "string" ? id : [],
  );
}

/** Names and paths of the outputs that upstream told of: keys are `sha256:…!NAME`, or names alone. */
export function reportedOutputs(
  { told }: Extract<Outcome, { kind: "built" }>,
  storeDir: string,
): Map<string, StorePath> {
  const paths = new Map<string, StorePath>();
  for (const [key, output] of told?.builtOutputs ?? []) {
    const censored = censoredOutput(output, storeDir);
    if (censored) paths.set(key.slice(key.indexOf("!") + 1), censored.path);
  }
  return paths;
}
