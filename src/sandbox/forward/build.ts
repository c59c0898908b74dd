/** Build requests: judged as a whole, forwarded, and what they made let into the view. */
import { isFixedOutput } from "../../policy/derivation-rules.ts";
import type { ReplyOf } from "../../protocol/operations.ts";
import type { KeyedBuildResult } from "../../protocol/types.ts";
import { fromWireText } from "../../protocol/wire.ts";
import type { StorePath } from "../../store/store-path.ts";
import { Deadline } from "../deadline.ts";
import { Refusal } from "../refusal.ts";
import type { Sandbox } from "../sandbox.ts";
import type { UpstreamConnection } from "../upstream/connection.ts";
import { type ApprovedClosure, approveClosure } from "./approve.ts";
import { buildFailed, builtResult, censoredResults, isSuccess } from "./build-censor.ts";
import { type BuildRequest, targetsOf, type Wanted, wantedOf } from "./build-targets.ts";
import { type Exchange, guarded, recordIntent } from "./exchange.ts";
import { LogFilter } from "./log-filter.ts";

type BuildExchange = Exchange<"BuildPaths" | "BuildPathsWithResults">;

/** What upstream told of each; undefined where the operation tells nothing, and all went well. */
type Results = ReadonlyMap<string, KeyedBuildResult> | undefined;

export async function buildPaths(
  exchange: Exchange<"BuildPaths">,
  request: BuildRequest,
): Promise<ReplyOf<"BuildPaths">> {
  const wanted = wantedOf(await targetsOf(exchange, request));
  if (wanted.length > 0) await build(exchange, wanted);
  return 1;
}

export async function buildPathsWithResults(
  exchange: Exchange<"BuildPathsWithResults">,
  request: BuildRequest,
): Promise<ReplyOf<"BuildPathsWithResults">> {
  const targets = await targetsOf(exchange, request);
  const wanted = wantedOf(targets);
  if (wanted.length === 0) return targets.map(({ asked }) => builtResult(asked));
  const { results, closure } = await build(exchange, wanted);
  return censoredResults(exchange, targets, closure, results ?? new Map());
}

async function build(
  exchange: BuildExchange,
  wanted: readonly Wanted[],
): Promise<{ results: Results; closure: ApprovedClosure }> {
  const { sandbox } = exchange;
  const closure = await approveClosure(
    sandbox,
    wanted.map(({ derivation }) => derivation),
  );
  // Each is a row of its own, whatever comes of it.
  sandbox.quota.checkAuditRows(wanted.length);
  const endWait = exchange.waits.begin(sandbox, await awaited(sandbox, closure));
  try {
    const endBuild = sandbox.quota.startBuild(Date.now());
    const results = await approvedBuild(exchange, wanted, closure).finally(endBuild);
    return { results, closure };
  } finally {
    endWait();
  }
}

async function approvedBuild(
  exchange: BuildExchange,
  wanted: readonly Wanted[],
  closure: ApprovedClosure,
): Promise<Results> {
  const started = Date.now();
  const logs = logFilter(exchange, closure);
  try {
    recordIntent(
      exchange,
      wanted.map(({ printed }) => printed),
    );
    const upstream = await exchange.upstream();
    if (closure.optsIn) await leaveMark(exchange, upstream);
    const results = await guarded(exchange, upstream, ["buildTimeout", buildTimeout(exchange)], () =>
      forwardBuild(exchange, upstream, wanted, closure, logs),
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

/** @throws Refusal */
async function forwardBuild(
  exchange: BuildExchange,
  upstream: UpstreamConnection,
  wanted: readonly Wanted[],
  closure: ApprovedClosure,
  logs: LogFilter,
): Promise<Results> {
  const { operation } = exchange;
  void upstream.send(operation, { paths: wanted.map(({ printed }) => printed), mode: 0 });
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
    if (refused !== undefined)
      throw buildFailed(
        exchange,
        wanted.map(({ derivation }) => derivation),
        closure,
        refused,
      );
    if (operation === "BuildPathsWithResults")
      return new Map((await upstream.reply(operation)).map((result) => [result.path, result]));
    await upstream.reply(operation);
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
  wanted: readonly Wanted[],
  results: Results,
  started: number,
): Promise<void> {
  const entering: StorePath[] = [];
  for (const path of wanted) {
    const result = results?.get(path.printed);
    if (results && !(result && isSuccess(result))) {
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
  path: Wanted,
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

function logFilter(exchange: BuildExchange, closure: ApprovedClosure): LogFilter {
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
