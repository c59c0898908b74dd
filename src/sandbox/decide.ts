/**
 * What is decided about each request. To review the security of nix-broker, read this ladder, then the table of
 * `policy/rules.ts`, then the handlers of the operations that it forwards.
 *
 * When a request arrives here, it has been decoded, except for its body, and nothing in it is trusted. It
 * passes these gates in this order. Each lets it through or throws, and throwing ends the request: the client
 * gets the text of a `Refusal`, the audit the row.
 *
 * 1. The sandbox has not ended.
 * 2. The audit can be written: nothing is served that could not be recorded (G7).
 * 3. The sandbox has rows left in the audit (`limits.audit_rows`).
 * 4. The operation is not denied, and the profile permits its group (`refuseOperation`; G4).
 *
 * From here on the operation is allowed, but not yet the paths that it names.
 *
 * 5. Where the profile says so (`admit_fixed_outputs`), fixed outputs that it names enter the view.
 * 6. A rule with an `answer` is answered by that: a function of the request and the view, and of nothing else (G1, G3).
 *    The request does not reach upstream. (With `view = "store"` the view itself is upstream's: `StoreView`
 *    asks it, in the broker's own words.) Most operations end here.
 * 7. The others are handled in `forward/handlers.ts`. Before asking upstream, the handler has made sure of the following:
 *    - all that the request names is in the view (`requireInView`), or it is refused as if it did not exist;
 *    - contents and derivations are what the policy allows: `methodOf`, `judge` and `refuseInputs` when they are added,
 *      `approveClosure` when they are to be built;
 *    - it is within the quotas;
 *    - the intent is committed, if it changes anything (`recordIntent`), and on the disk, if it builds (`syncIntent`; G7).
 *    Then upstream gets a rewritten request, in which only the contents are the client's bytes. The results
 *    enter the view (G2), and the client gets from upstream's reply what it may know (G3).
 * 8. An operation with neither is refused.
 */
import { type Rule, refuseOperation, rules } from "../policy/rules.ts";
import type { OperationName, ReplyOf, RequestOf } from "../protocol/operations.ts";
import { distinct, paced } from "../store/slices.ts";
import type { Exchange, REPLIED } from "./forward/exchange.ts";
import { handlers } from "./forward/handlers.ts";
import type { Recorder } from "./recorder.ts";
import { Refusal } from "./refusal.ts";
import type { Sandbox } from "./sandbox.ts";

/** @throws Refusal, NotInView, or what went wrong on the way */
export async function decide<N extends OperationName>(
  exchange: Exchange<N>,
  request: RequestOf<N>,
): Promise<ReplyOf<N> | typeof REPLIED> {
  const { operation, sandbox, recorder } = exchange;
  requireOngoing(sandbox);
  requireAudit(recorder);
  sandbox.quota.checkAuditRows();
  requirePermitted(operation, sandbox);
  const admitting = sandbox.admitFixedOutputs(exchange.subjects);
  if (admitting) await admitting;
  const rule: Rule<N> = rules[operation];
  const telling = operation === "QueryPathInfos" ? await pathsInInfos(exchange) : pathsToTell(exchange);
  const waiting = exchange.memory.reachReply(telling);
  if (waiting) await waiting;
  if (mayTellMuch(operation)) exchange.memory.arrived();
  if (rule.answer) return rule.answer(request, sandbox.view, exchange.table.minor, sandbox.pace);
  const handle = handlers[operation];
  if (handle) return handle(exchange, request);
  throw new Refusal(`${operation} is not allowed here`);
}

/**
 * Whether the reply may be longer than the request. Such a request keeps its place in the line of memory until it is known
 * how much longer: if it gave back a part first, it would wait for itself.
 */
export function mayTellMuch(operation: OperationName): boolean {
  return TELLING_MUCH.has(operation);
}

const TELLING_MUCH: ReadonlySet<OperationName> = new Set([
  "QueryAllValidPaths",
  "QueryPathInfos",
  "QueryReferrers",
  "QueryValidDerivers",
]);

/** How many paths a reply may list that is longer than its request. With the view `store` that is not known before. */
function pathsToTell({ operation, sandbox: { view } }: Exchange): number {
  switch (operation) {
    case "QueryAllValidPaths":
      return view.closed ? view.size : Number.POSITIVE_INFINITY;
    case "QueryReferrers":
    case "QueryValidDerivers":
      return view.closed ? 0 : Number.POSITIVE_INFINITY;
    default:
      return 0;
  }
}

/** How many paths the infos of the paths of a request list, references included. */
async function pathsInInfos({ subjects, sandbox: { view, pace } }: Exchange): Promise<number> {
  if (!view.closed) return Number.POSITIVE_INFINITY;
  let count = 0;
  for await (const path of paced(await distinct(subjects, pace), pace))
    count += 1 + ((await view.info(path))?.references.length ?? 0);
  return count;
}

/** @throws Refusal */
function requireOngoing({ ended }: Sandbox): void {
  if (ended !== undefined) throw new Refusal(ended);
}

/** @throws Refusal */
function requireAudit({ failure }: Recorder): void {
  if (failure === undefined) return;
  throw new Refusal(
    "nix-broker cannot write its audit log, so it serves nothing; the administrator must fix it",
    { reason: `the audit log cannot be written: ${failure}` },
  );
}

/** @throws Refusal */
function requirePermitted(operation: OperationName, { profile }: Sandbox): void {
  const refused = refuseOperation(operation, profile);
  if (refused !== undefined) throw new Refusal(`${operation} is not allowed here: ${refused}`);
}
