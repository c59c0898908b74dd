/** Handles one request: read it, have it decided, reply, record. */
import { rules } from "../policy/rules.ts";
import type { BoundOperation } from "../protocol/dialect-table.ts";
import type { MessageReader } from "../protocol/message-reader.ts";
import type { OperationName } from "../protocol/operations.ts";
import type { ClientOptions } from "./client-options.ts";
import type { ConnectionAudit, Judged } from "./connection-audit.ts";
import { decide, mayTellMuch } from "./decide.ts";
import type { Fetchers } from "./fetchers.ts";
import { Body } from "./forward/body.ts";
import { type Exchange, REPLIED } from "./forward/exchange.ts";
import type { MemoryBudget } from "./memory-budget.ts";
import type { Recorder } from "./recorder.ts";
import type { Replies } from "./replies.ts";
import type { RequestMemory } from "./request-memory.ts";
import type { Sandbox } from "./sandbox.ts";
import { asRefusal } from "./told-errors.ts";
import type { Transport, UpstreamConnection } from "./upstream/connection.ts";
import type { UpstreamStore } from "./upstream/store.ts";
import type { Waits } from "./waits.ts";

/** What stays the same from one request of a client to the next. */
export interface Client {
  readonly transport: Transport;
  readonly reader: MessageReader;
  readonly replies: Replies;
  readonly audit: ConnectionAudit;
  readonly sandbox: Sandbox;
  readonly store: UpstreamStore;
  readonly recorder: Recorder;
  readonly waits: Waits;
  readonly fetchers: Fetchers;
  readonly budget: MemoryBudget;
  readonly memory: RequestMemory;
  readonly options: ClientOptions;
  /** Its own newest version. */
  readonly minor: number;
  upstream(): UpstreamConnection | Promise<UpstreamConnection>;
}

/**
 * @returns false when the connection cannot go on
 * @throws any error of the connection, or in here
 */
export async function respond<N extends OperationName>(
  client: Client,
  operation: BoundOperation<N>,
): Promise<boolean> {
  const { transport, reader, replies, sandbox, memory } = client;
  const started = performance.now();
  const before = reader.consumed;
  const request = await reader.read(operation.request);
  if (operation.body === "none" && !mayTellMuch(operation.name)) memory.arrived();
  else memory.keep();
  const subjects = rules[operation.name].subjects?.(request) ?? [];
  const exchange = exchangeOf(client, operation, subjects, reader.consumed - before);
  let judged: Judged;
  let usable = true;
  try {
    const reply = await decide(exchange, request);
    if (!exchange.body.done) await exchange.body.drain();
    if (reply !== REPLIED) exchange.bytesOut += await replies.reply(operation, reply);
    const { reason = "", upstreamError } = exchange.failed ?? {};
    judged = { verdict: rules[operation.name].verdict, reason, upstreamError };
  } catch (error) {
    if (exchange.replying) transport.destroy();
    const refusal = asRefusal(error, exchange);
    if (refusal.limit) sandbox.quota.onLimit(refusal.limit);
    judged = refusal;
    memory.release();
    usable = !refusal.fatal && !exchange.replying;
    if (usable) await exchange.body.drain();
    if (!exchange.replying) await replies.error(refusal.message, refusal.status);
  } finally {
    exchange.body.close();
  }
  client.audit.request(operation.name, subjects, judged, started, exchange);
  return usable;
}

function exchangeOf<N extends OperationName>(
  client: Client,
  { name, body }: BoundOperation<N>,
  subjects: readonly string[],
  bytesIn: number,
): Exchange<N> {
  const {
    transport,
    reader,
    replies,
    audit,
    sandbox,
    store,
    recorder,
    waits,
    fetchers,
    budget,
    memory,
    options,
    minor,
  } = client;
  return {
    operation: name,
    subjects,
    asker: audit.asker,
    sandbox,
    table: replies.table,
    clientMinor: minor,
    client: transport,
    clientReader: reader,
    body: new Body(body, transport, sandbox.profile.limits.bodyBytes, memory),
    options,
    store,
    recorder,
    waits,
    fetchers,
    budget,
    memory,
    replying: false,
    failed: undefined,
    intent: undefined,
    bytesIn,
    bytesOut: 0,
    detail: {},
    upstream: () => client.upstream(),
  };
}
