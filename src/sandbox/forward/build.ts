/** Build requests: judged as a whole, forwarded, and what they made let into the view. */
import { isFixedOutput } from "../../policy/derivation-rules.ts";
import { type DerivedPath, parseDerivedPath, printDerivedPath } from "../../policy/derived-path.ts";
import { infoInView } from "../../policy/view-queries.ts";
import type { ReplyOf } from "../../protocol/operations.ts";
import { BUILD_MODES, BUILD_STATUS, type KeyedBuildResult } from "../../protocol/types.ts";
import { fromWireText } from "../../protocol/wire.ts";
import type { StorePath } from "../../store/store-path.ts";
import { Deadline } from "../deadline.ts";
import { Refusal } from "../refusal.ts";
import type { Sandbox } from "../sandbox.ts";
import type { UpstreamConnection } from "../upstream/connection.ts";
import { type ApprovedClosure, approveClosure } from "./approve.ts";
import { builderFailure } from "./builder-failure.ts";
import { type Exchange, guarded, recordIntent } from "./exchange.ts";
import { LogFilter } from "./log-filter.ts";
import { censorRealisation } from "./read.ts";

interface BuildRequest {
  readonly paths: readonly string[];
  readonly mode: number;
}

type Outputs = Extract<DerivedPath, { kind: "outputs" }>;

export async function buildPaths(exchange: Exchange, request: BuildRequest): Promise<ReplyOf<"BuildPaths">> {
  const wanted = await wantedOutputs(exchange, request);
  if (wanted.length > 0) await build(exchange, wanted, "BuildPaths");
  return 1;
}

export async function buildPathsWithResults(
  exchange: Exchange,
  request: BuildRequest,
): Promise<ReplyOf<"BuildPathsWithResults">> {
  const wanted = await wantedOutputs(exchange, request);
  if (wanted.length === 0) return request.paths.map((text) => result(text, BUILD_STATUS.built, ""));
  const { results, closure } = await build(exchange, wanted, "BuildPathsWithResults");
  const { minor } = exchange.table;
  const byPath = new Map(results.map((told) => [told.path, told]));
  const replies: KeyedBuildResult[] = [];
  for (const text of request.paths) {
    const path = parseDerivedPath(text, minor, exchange.sandbox.view.storeDir);
    const told = path && byPath.get(printDerivedPath(path, minor));
    if (told) replies.push(await censoredResult(exchange, text, closure, told));
    else if (path?.kind === "path") replies.push(result(text, BUILD_STATUS.built, ""));
    // Upstream says nothing of what it did not come to, once something else had failed.
    else replies.push(result(text, BUILD_STATUS.permanentFailure, `'${text}' was not built`));
  }
  return replies;
}

/** What is to be built of what was asked for: paths that are in the view are there. @throws Refusal, NotInView */
async function wantedOutputs(exchange: Exchange, request: BuildRequest): Promise<Outputs[]> {
  const { view } = exchange.sandbox;
  const mode = BUILD_MODES[request.mode];
  if (mode !== "normal")
    throw new Refusal(`build mode '${mode ?? request.mode}' is not allowed; only 'normal' is`);
  const wanted = new Map<string, Outputs>();
  for (const text of request.paths) {
    const path = parseDerivedPath(text, exchange.table.minor, view.storeDir);
    if (!path) throw new Refusal(`'${text.slice(0, 300)}' cannot be built`);
    if (path.kind === "outputs") wanted.set(printDerivedPath(path, exchange.table.minor), path);
    else await infoInView(path.path, view);
  }
  return [...wanted.values()];
}

async function build<N extends "BuildPaths" | "BuildPathsWithResults">(
  exchange: Exchange,
  wanted: readonly Outputs[],
  operation: N,
): Promise<{ results: readonly KeyedBuildResult[]; closure: ApprovedClosure }> {
  const { sandbox } = exchange;
  const closure = await approveClosure(
    sandbox,
    wanted.map((path) => path.derivation),
  );
  // Each is a row of its own, whatever comes of it.
  sandbox.quota.checkAuditRows(wanted.length);
  const endWait = exchange.waits.begin(sandbox, await awaited(sandbox, closure));
  try {
    const endBuild = sandbox.quota.startBuild(Date.now());
    const results = await approvedBuild(exchange, wanted, closure, operation).finally(endBuild);
    return { results: results ?? [], closure };
  } finally {
    endWait();
  }
}

async function approvedBuild(
  exchange: Exchange,
  wanted: readonly Outputs[],
  closure: ApprovedClosure,
  operation: "BuildPaths" | "BuildPathsWithResults",
): Promise<readonly KeyedBuildResult[] | undefined> {
  const started = Date.now();
  const logs = logFilter(exchange, closure);
  try {
    recordIntent(
      exchange,
      wanted.map((path) => printDerivedPath(path, exchange.table.minor)),
    );
    const upstream = await exchange.upstream();
    if (closure.optsIn) await leaveMark(exchange, upstream);
    const results = await guarded(exchange, upstream, ["buildTimeout", buildTimeout(exchange)], () =>
      forwardBuild(exchange, upstream, wanted, closure, operation, logs),
    );
    await admitOutputs(exchange, upstream, wanted, results, started);
    return results;
  } catch (error) {
    for (const { derivation } of wanted) recordBuild(exchange, derivation, new Map(), started);
    throw error;
  } finally {
    if (logs.dropped > 0) {
      exchange.detail.logLinesDropped = logs.dropped;
      exchange.sandbox.quota.onLimit("logBytes");
    }
  }
}

/** So that root's programs can tell whose inner build it is that gets a sandbox of its own. */
async function leaveMark(exchange: Exchange, upstream: UpstreamConnection): Promise<void> {
  const { mark } = exchange.sandbox;
  await guarded(exchange, upstream, "requestDeadline", () => upstream.ask("AddTempRoot", { path: mark }));
}

/** What these builds would wait for: outputs that are not in the view, and derivations whose outputs are not known. */
async function awaited({ view }: Sandbox, closure: ApprovedClosure): Promise<ReadonlySet<StorePath>> {
  const keys = new Set<StorePath>();
  for (const [path, { outputs }] of closure.derivations)
    for (const output of outputs.values())
      if (output.path === "" || !(await view.info(output.path))) keys.add(output.path || path);
  return keys;
}

/** @returns the results where the operation has any; undefined means that all went well. @throws Refusal */
async function forwardBuild(
  exchange: Exchange,
  upstream: UpstreamConnection,
  wanted: readonly Outputs[],
  closure: ApprovedClosure,
  operation: "BuildPaths" | "BuildPathsWithResults",
  logs: LogFilter,
): Promise<KeyedBuildResult[] | undefined> {
  const paths = wanted.map((path) => printDerivedPath(path, upstream.table.minor));
  void upstream.send(operation, { paths, mode: 0 });
  const seconds = silentTimeout(exchange);
  const silence = new Deadline(seconds, () => upstream.destroy());
  try {
    const refused = await upstream.outcome({
      log(message) {
        silence.alive();
        logs.take(message);
      },
    });
    logs.finish();
    if (refused !== undefined) throw buildFailed(exchange, wanted, closure, refused);
    if (operation === "BuildPathsWithResults") return await upstream.reply("BuildPathsWithResults");
    await upstream.reply("BuildPaths");
    return undefined;
  } catch (error) {
    if (!silence.passed) throw error;
    throw new Refusal(`the build printed nothing for ${seconds} seconds (limits.silent_timeout)`, {
      verdict: "forward",
      limit: "silentTimeout",
    });
  } finally {
    silence.clear();
  }
}

/** Lets in what was built. Upstream's connection is still open, so the outputs cannot be collected meanwhile. */
async function admitOutputs(
  exchange: Exchange,
  upstream: UpstreamConnection,
  wanted: readonly Outputs[],
  results: readonly KeyedBuildResult[] | undefined,
  started: number,
): Promise<void> {
  const built = results && new Set(results.filter(({ status }) => isSuccess(status)).map(({ path }) => path));
  const entering: StorePath[] = [];
  for (const path of wanted) {
    if (built && !built.has(printDerivedPath(path, exchange.table.minor))) {
      recordBuild(exchange, path.derivation, new Map(), started);
      continue;
    }
    const outputs = await outputPaths(exchange, upstream, path);
    recordBuild(exchange, path.derivation, outputs, started);
    entering.push(...outputs.values());
  }
  await exchange.sandbox.admit(entering);
}

/** The paths of the wanted outputs. Those of content-addressed derivations are known only now, and only upstream. */
async function outputPaths(
  exchange: Exchange,
  upstream: UpstreamConnection,
  path: Outputs,
): Promise<Map<string, StorePath>> {
  const derivation = await exchange.store.derivation(path.derivation);
  const names = path.outputs ?? [...derivation.outputs.keys()];
  const told = new Map(names.map((name) => [name, derivation.outputs.get(name)?.path ?? ""]));
  if ([...told.values()].includes("")) {
    const resolved = await guarded(exchange, upstream, "requestDeadline", () =>
      upstream.ask("QueryDerivationOutputMap", { path: path.derivation }),
    );
    for (const name of names) told.set(name, resolved.get(name) ?? "");
  }
  for (const [name, output] of told)
    if (output === "")
      throw new Refusal(`'${path.derivation}' has no output '${name}'`, {
        verdict: "forward",
        reason: "no such output",
      });
  return told;
}

function buildTimeout(exchange: Exchange): number {
  return Math.min(exchange.sandbox.profile.limits.buildTimeout, exchange.options.timeout);
}

function silentTimeout(exchange: Exchange): number {
  return Math.min(exchange.sandbox.profile.limits.silentTimeout, exchange.options.maxSilentTime);
}

function logFilter(exchange: Exchange, closure: ApprovedClosure): LogFilter {
  const { client, sandbox } = exchange;
  const { logBytes } = sandbox.profile.limits;
  const hidden: string[] = [];
  return new LogFilter({
    dialect: exchange.table,
    clientMinor: exchange.clientMinor,
    send(message) {
      if (client.writableLength > logBytes) return false;
      void client.write(message);
      return true;
    },
    visible(path) {
      if (sandbox.profile.innerLogs === "none") return false;
      const derivation = closure.derivations.get(path);
      // Upstream resolves derivations with content-addressed inputs into others, which nobody asked for by name.
      return derivation ? !isFixedOutput(derivation) : !closure.fetches;
    },
    hidden(path, line) {
      if (hidden.length >= MOST_HIDDEN_LINES) return;
      // Decoded, it is a copy: a mere piece would keep the whole line in memory.
      hidden.push(fromWireText(`${path}: ${line.slice(0, LONGEST_HIDDEN_LINE)}`));
      exchange.detail.hiddenLog = hidden;
    },
  });
}

/** Lines of fixed-output derivations that one audit record keeps. */
const MOST_HIDDEN_LINES = 100;
const LONGEST_HIDDEN_LINE = 1000;

/** As the daemon has it: nix-build ends with 100 when a build failed (src/libstore/build.cc, 2.3). */
const BUILD_FAILED_STATUS = 100;

function buildFailed(
  exchange: Exchange,
  wanted: readonly Outputs[],
  closure: ApprovedClosure,
  upstreamError: string,
): Refusal {
  const names = wanted.map((path) => `'${path.derivation}'`).join(", ");
  return new Refusal(`build of ${names} failed${reasonOf(exchange, closure, upstreamError)}`, {
    verdict: "forward",
    reason: "the build failed",
    upstreamError,
    upstreamInStep: true,
    status: BUILD_FAILED_STATUS,
  });
}

/** Which builder failed and how, where that is no secret: not of what fetches, nor with `inner_logs = "none"`. */
function reasonOf(exchange: Exchange, closure: ApprovedClosure, upstreamError: string): string {
  const failure = builderFailure(upstreamError);
  const derivation = failure && closure.derivations.get(failure.derivation);
  if (!derivation || isFixedOutput(derivation) || exchange.sandbox.profile.innerLogs === "none") return "";
  return `: the builder of '${failure.derivation}' ${failure.what}`;
}

function isSuccess(status: number): boolean {
  return SUCCESS.has(status);
}
const SUCCESS: ReadonlySet<number> = new Set([
  BUILD_STATUS.built,
  BUILD_STATUS.substituted,
  BUILD_STATUS.alreadyValid,
  BUILD_STATUS.resolvesToAlreadyValid,
]);

/** Success or failure, and the outputs: nothing of how, where, when and by whom (G3). */
function result(path: string, status: number, error: string): KeyedBuildResult {
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

async function censoredResult(
  exchange: Exchange,
  asked: string,
  closure: ApprovedClosure,
  told: KeyedBuildResult,
): Promise<KeyedBuildResult> {
  if (!isSuccess(told.status)) {
    const { derivation } = parseDerivedPath(
      told.path,
      exchange.table.minor,
      exchange.sandbox.view.storeDir,
    ) as Outputs;
    const status =
      told.status === BUILD_STATUS.timedOut ? BUILD_STATUS.timedOut : BUILD_STATUS.permanentFailure;
    exchange.detail.upstreamError = told.error;
    const text = `build of '${derivation}' failed${reasonOf(exchange, closure, told.error)}`;
    return result(asked, status, text);
  }
  return {
    ...result(asked, BUILD_STATUS.built, ""),
    builtOutputs: await censoredOutputs(exchange, told.builtOutputs),
  };
}

async function censoredOutputs(
  { sandbox: { view } }: Exchange,
  told: KeyedBuildResult["builtOutputs"],
): Promise<NonNullable<KeyedBuildResult["builtOutputs"]>> {
  const outputs = new Map<string, string | { path: string; signatures: string[] }>();
  for (const [key, output] of told ?? []) {
    const censored =
      typeof output === "string"
        ? censorRealisation(output, view.storeDir)
        : { path: output.path, text: { path: output.path, signatures: [] } };
    if (censored && (await view.info(censored.path))) outputs.set(key, censored.text);
  }
  // One form or the other, as the dialect has it: never both.
  return outputs as NonNullable<KeyedBuildResult["builtOutputs"]>;
}

function recordBuild(
  exchange: Exchange,
  derivation: StorePath,
  outputs: ReadonlyMap<string, StorePath>,
  started: number,
): void {
  const { asker, intent } = exchange;
  asker.sandbox.quota.countAuditRow();
  const durationMs = Date.now() - started;
  exchange.recorder.build({ asker, derivation, outputs, ok: outputs.size > 0, durationMs, intent });
}
