/** Build requests: what may run is judged, then built upstream; the results are added to the view. */
import type { ReplyOf } from "../../protocol/operations.ts";
import type { StorePath } from "../../store/store-path.ts";
import { Refusal } from "../refusal.ts";
import type { UpstreamConnection } from "../upstream/connection.ts";
import type { Resolver } from "../upstream/resolver.ts";
import { type Approval, approve, type WantedOutputs } from "./approve.ts";
import { type Built, censoredResults, realisedBy, reportedOutputs, requireAllBuilt } from "./build-censor.ts";
import { buildLog } from "./build-log.ts";
import { BuildRun, type NamedOutputs, type Outcome } from "./build-run.ts";
import { type BuildRequest, targetsOf, wantedOf } from "./build-targets.ts";
import { type BuildExchange, type Exchange, guarded, recordIntent, syncIntent } from "./exchange.ts";
import { heldInView, heldOnConnection } from "./held-outputs.ts";
import { LogTails } from "./log-tails.ts";

export async function buildPaths(
  exchange: Exchange<"BuildPaths">,
  request: BuildRequest,
): Promise<ReplyOf<"BuildPaths">> {
  await requireAllBuilt(exchange, await build(exchange, wantedOf(await targetsOf(exchange, request))));
  return 1;
}

export async function buildPathsWithResults(
  exchange: Exchange<"BuildPathsWithResults">,
  request: BuildRequest,
): Promise<ReplyOf<"BuildPathsWithResults">> {
  const targets = await targetsOf(exchange, request);
  return censoredResults(exchange, targets, await build(exchange, wantedOf(targets)));
}

/** @throws Refusal, NotInView; a build that fails is an outcome, not an error */
async function build(exchange: BuildExchange, wanted: readonly WantedOutputs[]): Promise<Built> {
  const tails = new LogTails();
  if (wanted.length === 0) return { outcomes: new Map(), runs: new Map(), tails };
  const { sandbox } = exchange;
  // Each is its own row, whatever the outcome.
  sandbox.quota.checkAuditRows(wanted.length);
  const endBuild = sandbox.quota.startBuild();
  let forgetNames: (() => void) | undefined;
  try {
    forgetNames = exchange.budget.toBuild(sandbox.quota, exchange.bytesIn);
    exchange.memory.release();
    // What is held on a connection is held for that connection only: that one, and no other, then carries the build.
    const holder = sandbox.view.closed ? undefined : await exchange.upstream();
    const held = holder ? heldOnConnection(exchange, holder, wanted) : heldInView(exchange);
    const approval = await approve(sandbox, held, wanted);
    try {
      return { ...(await waitedBuild(exchange, holder, wanted, approval, tails)), tails };
    } finally {
      await approval.release();
    }
  } finally {
    forgetNames?.();
    endBuild();
  }
}

/** What these builds lock, and so may wait for: their outputs, and derivations whose outputs are not known before. */
function locked({ runs }: Approval): ReadonlySet<StorePath> {
  const keys = new Set<StorePath>();
  for (const [path, { outputs }] of runs) for (const output of outputs.values()) keys.add(output || path);
  return keys;
}

/** @throws as `build`, and Refusal when the request could wait forever */
async function waitedBuild(...build: Parameters<typeof approvedBuild>): ReturnType<typeof approvedBuild> {
  const [{ sandbox, waits }, , , approval] = build;
  const endWait = waits.begin(sandbox, locked(approval));
  try {
    return await approvedBuild(...build);
  } finally {
    endWait();
  }
}

/** @param holder the connection that holds what was not judged */
async function approvedBuild(
  exchange: BuildExchange,
  holder: UpstreamConnection | undefined,
  wanted: readonly WantedOutputs[],
  { runs, asked }: Approval,
  tails: LogTails,
): Promise<Omit<Built, "tails">> {
  const started = performance.now();
  const unrecorded = new Set(wanted.map(({ derivation }) => derivation));
  const record = (derivation: StorePath, outputs: ReadonlyMap<string, StorePath>): void => {
    if (unrecorded.delete(derivation)) recordBuild(exchange, derivation, outputs, started);
  };
  const targets = wanted.map(({ derivation, outputs }) => ({
    derivation,
    outputs: outputs ?? [...(asked.get(derivation)?.keys() ?? [])],
  }));
  const log = buildLog(exchange, runs, tails);
  try {
    if (exchange.intent === undefined) recordIntent(exchange, exchange.subjects);
    await syncIntent(exchange);
    const upstream = holder ?? (await exchange.upstream());
    if ([...runs.values()].some(({ optsIn }) => optsIn)) await leaveMark(exchange, upstream);
    const outcomes = await new BuildRun(exchange, upstream, runs, log).build(targets);
    const entering: StorePath[] = [];
    const resolver = exchange.store.resolver();
    for (const target of targets) {
      const outputs = await outputPaths(exchange, target, asked, outcomes.get(target.derivation), resolver);
      record(target.derivation, outputs);
      for (const output of outputs.values()) entering.push(output);
    }
    // Upstream's connection is still open, so the outputs cannot be collected meanwhile.
    const fixed = new Map(
      [...runs.values()].flatMap(({ outputs, contentAddress }) =>
        [...outputs.values()].map((path) => [path, contentAddress]),
      ),
    );
    await exchange.sandbox.admit(entering, ({ path }) => fixed.get(path) ?? "");
    for (const outcome of outcomes.values())
      for (const id of realisedBy(outcome)) exchange.sandbox.realised.add(id);
    return { outcomes, runs };
  } catch (error) {
    for (const derivation of unrecorded) record(derivation, new Map());
    throw error;
  } finally {
    if (log.dropped > 0) {
      exchange.detail.logLinesDropped = log.dropped;
      exchange.sandbox.quota.onLimit("logBytes");
    }
  }
}

/** So that root's programs know whose inner build it is that gets its own sandbox. */
async function leaveMark(exchange: Exchange, upstream: UpstreamConnection): Promise<void> {
  const { mark } = exchange.sandbox;
  await guarded(exchange, upstream, "requestDeadline", () => upstream.ask("AddTempRoot", { path: mark }));
}

/**
 * The paths of the outputs that were built. Those of content-addressed derivations are known only now, and
 * only by upstream.
 */
async function outputPaths(
  exchange: Exchange,
  { derivation, outputs: names }: NamedOutputs,
  asked: Approval["asked"],
  outcome: Outcome | undefined,
  resolver: Resolver,
): Promise<Map<string, StorePath>> {
  if (outcome?.kind !== "built") return new Map();
  const paths = new Map(names.map((name) => [name, asked.get(derivation)?.get(name) ?? ""]));
  if ([...paths.values()].includes(""))
    for (const [name, path] of reportedOutputs(outcome, exchange.sandbox.view.storeDir))
      if (paths.get(name) === "") paths.set(name, path);
  if ([...paths.values()].includes("")) {
    const resolved = await exchange.store.outputMap(derivation, resolver);
    for (const [name, path] of paths) if (path === "") paths.set(name, resolved.get(name) ?? "");
  }
  for (const [name, path] of paths)
    if (path === "")
      throw new Refusal(`'${derivation}' has no output '${name}'`, {
        verdict: "forward",
        reason: "no such output",
      });
  return paths;
}

function recordBuild(
  exchange: Exchange,
  derivation: StorePath,
  outputs: ReadonlyMap<string, StorePath>,
  started: number,
): void {
  const { asker, intent } = exchange;
  asker.sandbox.quota.countAuditRow();
  const durationMs = Math.round(performance.now() - started);
  exchange.recorder.build({ asker, derivation, outputs, ok: outputs.size > 0, durationMs, intent });
}
