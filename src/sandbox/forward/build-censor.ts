/**
 * What a client may know of how a build went: success or failure, its outputs, and how its own builder failed.
 * Nothing of how else, where, when and by whom (G3). Upstream's words go to the audit.
 */
import { isFixedOutput } from "../../policy/derivation-rules.ts";
import { BUILD_STATUS, type KeyedBuildResult } from "../../protocol/types.ts";
import { fromWireText } from "../../protocol/wire.ts";
import type { StorePath } from "../../store/store-path.ts";
import type { BuildFailure } from "../detail.ts";
import { Refusal } from "../refusal.ts";
import type { ApprovedClosure } from "./approve.ts";
import type { Target } from "./build-targets.ts";
import { builderFailure } from "./builder-failure.ts";
import type { Exchange } from "./exchange.ts";
import { censorRealisation } from "./read.ts";

type Status = (typeof BUILD_STATUS)[keyof typeof BUILD_STATUS];

/** For the audit, of a request whose build failed. */
const BUILD_FAILED = "the build failed";
/** As the daemon has it: nix-build ends with 100 when a build failed (src/libstore/build.cc, 2.3). */
const BUILD_FAILED_STATUS = 100;

/** The error for a client whose whole request failed. */
export function buildFailed(
  exchange: Exchange,
  derivations: readonly StorePath[],
  closure: ApprovedClosure,
  upstreamError: string,
): Refusal {
  return new Refusal(failureText(exchange, derivations, closure, upstreamError), {
    verdict: "forward",
    reason: BUILD_FAILED,
    upstreamError,
    upstreamInStep: true,
    status: BUILD_FAILED_STATUS,
  });
}

/** Which builder failed and how, where that is no secret: not of what fetches, nor with `inner_logs = "none"`. */
function failureText(
  { sandbox }: Exchange,
  derivations: readonly StorePath[],
  closure: ApprovedClosure,
  upstreamError: string,
): string {
  const text = `build of ${derivations.map((path) => `'${path}'`).join(", ")} failed`;
  const failure = builderFailure(upstreamError);
  const derivation = failure && closure.derivations.get(failure.derivation);
  if (!derivation || isFixedOutput(derivation) || sandbox.profile.innerLogs === "none") return text;
  return `${text}: the builder of '${failure.derivation}' ${failure.what}`;
}

/** Failures of one request that its record names; the others are counted. */
const MOST_FAILURES = 32;
/** Of each text of a failure, in characters: together they fit into a record, whatever a client asks for. */
const LONGEST_FAILURE_TEXT = 500;

/** The reply to a request whose results upstream told, each under its printed target; failures are noted in the exchange. */
export async function censoredResults(
  exchange: Exchange<"BuildPathsWithResults">,
  targets: readonly Target[],
  closure: ApprovedClosure,
  told: ReadonlyMap<string, KeyedBuildResult>,
): Promise<KeyedBuildResult[]> {
  const results: KeyedBuildResult[] = [];
  for (const { asked, wanted } of targets) {
    const result = wanted && told.get(wanted.printed);
    if (!wanted) results.push(builtResult(asked));
    else if (result && isSuccess(result))
      results.push({ ...builtResult(asked), builtOutputs: await censoredOutputs(exchange, result) });
    else results.push(failedResult(exchange, asked, wanted.derivation, closure, result));
  }
  return results;
}

/** @param told undefined: upstream says nothing of what it did not come to, once something else had failed */
function failedResult(
  exchange: Exchange<"BuildPathsWithResults">,
  asked: string,
  derivation: StorePath,
  closure: ApprovedClosure,
  told: KeyedBuildResult | undefined,
): KeyedBuildResult {
  const upstreamError = told && fromWireText(told.error);
  const reason =
    upstreamError === undefined
      ? `'${asked}' was not built`
      : failureText(exchange, [derivation], closure, upstreamError);
  noteFailure(exchange, { path: asked, reason, ...(upstreamError !== undefined && { upstreamError }) });
  const timedOut = told?.status === BUILD_STATUS.timedOut;
  return resultOf(asked, timedOut ? BUILD_STATUS.timedOut : BUILD_STATUS.permanentFailure, reason);
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

export function isSuccess({ status }: KeyedBuildResult): boolean {
  return SUCCESS.has(status);
}
const SUCCESS: ReadonlySet<number> = new Set([
  BUILD_STATUS.built,
  BUILD_STATUS.substituted,
  BUILD_STATUS.alreadyValid,
  BUILD_STATUS.resolvesToAlreadyValid,
]);

/** What is there, whoever built it and whenever. */
export function builtResult(asked: string): KeyedBuildResult {
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

async function censoredOutputs(
  { sandbox: { view } }: Exchange,
  { builtOutputs }: KeyedBuildResult,
): Promise<NonNullable<KeyedBuildResult["builtOutputs"]>> {
  const outputs = new Map<string, string | { path: string; signatures: string[] }>();
  for (const [key, output] of builtOutputs ?? []) {
    const censored =
      typeof output === "string"
        ? censorRealisation(output, view.storeDir)
        : { path: output.path, text: { path: output.path, signatures: [] } };
    if (censored && (await view.info(censored.path))) outputs.set(key, censored.text);
  }
  // One form or the other, as the dialect has it: never both.
  return outputs as NonNullable<KeyedBuildResult["builtOutputs"]>;
}
