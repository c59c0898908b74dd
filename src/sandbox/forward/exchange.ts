/** One request in progress: what the handlers work with. */

import type { DialectTable } from "../../protocol/dialect-table.ts";
import type { MessageReader } from "../../protocol/message-reader.ts";
import type { OperationName, ReplyOf } from "../../protocol/operations.ts";
import type { ClientOptions } from "../client-options.ts";
import { Deadline } from "../deadline.ts";
import type { DetailOf } from "../detail.ts";
import type { Fetchers } from "../fetchers.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import type { Asker, Recorder } from "../recorder.ts";
import { Refusal } from "../refusal.ts";
import type { RequestMemory } from "../request-memory.ts";
import type { Sandbox } from "../sandbox.ts";
import { type Transport, type UpstreamConnection, UpstreamError } from "../upstream/connection.ts";
import type { UpstreamStore } from "../upstream/store.ts";
import type { Waits } from "../waits.ts";
import type { Body } from "./body.ts";
import { type Timeout, upstreamTimeout } from "./build-timeouts.ts";

/** A handler wrote the whole reply itself. */
export const REPLIED = Symbol("replied");

export interface Exchange<N extends OperationName = OperationName> {
  readonly operation: N;
  /** What the request is about, as its rule has it. */
  readonly subjects: readonly string[];
  readonly asker: Asker;
  readonly sandbox: Sandbox;
  /** The client's dialect. */
  readonly table: DialectTable;
  /** The client's own newest version. */
  readonly clientMinor: number;
  readonly client: Transport;
  readonly clientReader: MessageReader;
  readonly body: Body;
  readonly options: ClientOptions;
  readonly store: UpstreamStore;
  readonly recorder: Recorder;
  readonly waits: Waits;
  readonly fetchers: Fetchers;
  /** What all requests hold together. */
  readonly budget: MemoryBudget;
  /** What this request holds. */
  readonly memory: RequestMemory;
  /** Part of the reply has been sent: an error can no longer be reported, only the connection closed. */
  replying: boolean;
  /** The reply says that the request failed, and so must the record. */
  failed: { readonly reason: string; readonly upstreamError: string | undefined } | undefined;
  /** The request itself; the body counts itself. */
  bytesIn: number;
  bytesOut: number;
  /** The record number of the intent to change upstream, once there is one. */
  intent: number | undefined;
  /** For the audit. */
  readonly detail: DetailOf<N>;
  /** This client's own upstream connection, taken from the pool when first needed. It is destroyed when the client leaves. */
  upstream(): UpstreamConnection | Promise<UpstreamConnection>;
}

export type BuildExchange = Exchange<"BuildPaths" | "BuildPathsWithResults">;

/** Records the intent to change something upstream. @throws Refusal when that cannot be done (G7). */
export function recordIntent(exchange: Exchange, subjects: readonly string[]): void {
  const { quota } = exchange.sandbox;
  quota.checkAuditRows();
  quota.countAuditRow(subjects);
  try {
    exchange.intent = exchange.recorder.intend(exchange.asker, exchange.operation, subjects);
  } catch (error) {
    throw unrecorded(error as Error);
  }
}

/**
 * Waits until the recorded intent survives power loss: a build runs programs of the sandbox, and what these did outlasts
 * even the loss of Nix's own registration.
 * @throws Refusal when that cannot be done
 */
export async function syncIntent({ recorder }: Exchange): Promise<void> {
  try {
    await recorder.synced();
  } catch (error) {
    throw unrecorded(error as Error);
  }
}

function unrecorded(error: Error): Refusal {
  return new Refusal(
    "nix-broker cannot write its audit log, so it changes nothing; the administrator must make room for it",
    { reason: `the audit log cannot be written: ${error.message}` },
  );
}

/** Sends upstream at most `length` bytes of the body, as it asked for (protocol 1.21 and 1.22). */
export type Pull = (length: number, deadline: Deadline) => Promise<void>;

/**
 * Waits for upstream's reply while `sending` passes request and body on; upstream may answer before that ends.
 *
 * After an error upstream may not have read the body, and would take it for requests: such a connection is
 * always destroyed.
 * @throws Refusal when upstream answers with an error or breaks off, and what `sending` throws.
 */
export async function replyWithBody<N extends OperationName>(
  exchange: Exchange,
  upstream: UpstreamConnection,
  operation: N,
  sending: (deadline: Deadline, stopped: () => boolean) => Promise<void>,
  pull?: Pull,
): Promise<ReplyOf<N>> {
  let answered = false;
  let finished = false;
  return guarded(exchange, upstream, "requestDeadline", async (deadline) => {
    const outcome = upstream.outcome(pull ? { pull: (length) => pull(length, deadline) } : {}).then(
      (error) => {
        answered = true;
        if (error !== undefined || !finished) upstream.destroy();
        return error;
      },
      (error: Error) => {
        answered = true;
        upstream.destroy();
        throw error;
      },
    );
    outcome.catch(() => undefined);
    try {
      await sending(deadline, () => answered);
      finished = !answered;
    } catch (error) {
      if (!answered) throw error;
    }
    const refused = await outcome;
    upstream.transport.bulk(false);
    if (refused !== undefined) throw refusedByUpstream(exchange, refused);
    if (!finished)
      throw new Refusal("upstream answered before it had read the data", {
        verdict: "forward",
        upstreamError: "answered before the body was sent",
      });
    return upstream.reply(operation);
  });
}

/** The error for a client whose request upstream refused; upstream's message goes to the audit. */
export function refusedByUpstream(exchange: Exchange, upstreamError: string): Refusal {
  return new Refusal(
    `the nix-daemon refused ${exchange.operation}; the reason is in nix-broker's audit log`,
    {
      verdict: "forward",
      reason: "refused upstream",
      upstreamError,
      upstreamInStep: true,
    },
  );
}

/**
 * Runs a piece of work on an upstream connection, within a deadline and while the client is there. If it
 * fails, the connection is out of step and gets destroyed.
 * @throws Refusal; errors of the client's own side as they are
 */
export async function guarded<T>(
  exchange: Exchange,
  upstream: UpstreamConnection,
  limit: "requestDeadline" | Timeout,
  work: (deadline: Deadline) => T | Promise<T>,
): Promise<T> {
  const timeout = typeof limit === "string" ? upstreamTimeout(exchange, limit) : limit;
  const deadline = new Deadline(timeout.seconds, () => upstream.destroy());
  try {
    return await work(deadline);
  } catch (error) {
    const inStep = error instanceof Refusal && error.upstreamInStep && exchange.body.kind === "none";
    if (!inStep) upstream.destroy();
    if (error instanceof Refusal) throw error;
    if (deadline.passed) throw timeout.refusal();
    throw error instanceof UpstreamError ? brokenUpstream(error) : error;
  } finally {
    deadline.clear();
  }
}

export function brokenUpstream(error: UpstreamError): Refusal {
  return new Refusal("the connection to the nix-daemon broke; it may have been restarted: try again", {
    verdict: "forward",
    reason: "upstream broke off",
    upstreamError: error.explained,
  });
}
