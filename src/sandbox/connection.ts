/**
 * One client connection, from greeting to end. `serve` is the story of a connection, `respond` that of one
 * request: read it, judge it, answer it or have it forwarded, reply, record.
 */
import { type Rule, refuseOperation, rules } from "../policy/rules.ts";
import { u64 } from "../protocol/codec.ts";
import { compile } from "../protocol/compile.ts";
import { type BoundOperation, type DialectTable, tableFor } from "../protocol/dialect-table.ts";
import { type ClientGreeting, greetClient } from "../protocol/handshake.ts";
import { logCodecs, makeError, STDERR } from "../protocol/log-messages.ts";
import { MessageReader } from "../protocol/message-reader.ts";
import type { OperationName, RequestOf } from "../protocol/operations.ts";
import { type Dialect, dialectName, type Feature, NEWEST_MINOR, OLDEST_MINOR } from "../protocol/version.ts";
import { Encoder, TooLongError, toWireText } from "../protocol/wire.ts";
import { heedOptions, noOptions } from "./client-options.ts";
import { ConnectionAudit, denied, type Judged } from "./connection-audit.ts";
import { Deadline } from "./deadline.ts";
import { Body } from "./forward/body.ts";
import { type Exchange, REPLIED } from "./forward/exchange.ts";
import { forwarders } from "./forward/forwarders.ts";
import type { Recorder } from "./recorder.ts";
import { Refusal } from "./refusal.ts";
import type { Sandbox } from "./sandbox.ts";
import { asRefusal, isPeerFault, troubleOf } from "./told-errors.ts";
import type { Transport, UpstreamConnection } from "./upstream/connection.ts";
import type { UpstreamPool } from "./upstream/pool.ts";
import type { UpstreamStore } from "./upstream/store.ts";
import type { Waits } from "./waits.ts";

/** The client's end; `host/byte-stream.ts` is one. */
export interface ClientTransport extends Transport {
  readonly peer?: { readonly pid: number; readonly uid: number } | undefined;
  end(): void;
}

/** Of the byte streams of clients: how much they may send in one piece is `limits.request_bytes` of their profile. */
export const CLIENT_STREAM = { maxBuffer: Number.POSITIVE_INFINITY };

export interface ConnectionServices {
  readonly pool: UpstreamPool;
  readonly store: UpstreamStore;
  readonly recorder: Recorder;
  readonly waits: Waits;
}

/** Told as the daemon's version, always the same: which Nix it is says something of the host. */
const VERSION_TEXT = "nix-broker";
/** Served by the broker itself, whatever upstream has. */
const OWN_FEATURES: readonly Feature[] = ["add-to-store-scanning"];
const NO_TABLE = { minor: NEWEST_MINOR, features: new Set<Feature>(), storeDir: "" };
const operationNumber = compile(u64, NO_TABLE);

export class Connection {
  private readonly client: ClientTransport;
  readonly sandbox: Sandbox;
  private readonly services: ConnectionServices;
  private readonly audit: ConnectionAudit;
  private readonly reader: MessageReader;
  private readonly encoder = new Encoder();
  private gone = false;
  private table: DialectTable;
  private greeting: ClientGreeting | undefined;
  private upstreamConnection: UpstreamConnection | undefined;
  private readonly options = noOptions();
  /** Set while a request is under way; a graceful stop waits for it. */
  busy = false;
  private stopping = false;
  /** Uncounts the client; undefined once its socket is closed. One that lingers counts: it holds a descriptor. */
  private release: (() => void) | undefined;
  private linger: Deadline | undefined;

  constructor(client: ClientTransport, sandbox: Sandbox, services: ConnectionServices, number: number) {
    this.client = client;
    this.sandbox = sandbox;
    this.services = services;
    this.audit = new ConnectionAudit(sandbox, services.recorder, number, client.peer);
    this.reader = new MessageReader(client, sandbox.profile.limits.requestBytes);
    this.table = tableFor({ ...NO_TABLE, storeDir: sandbox.view.storeDir });
    client.onClose = () => this.closed();
  }

  /** Serves the client until it leaves. Never throws. */
  async serve(): Promise<void> {
    this.client.onEnd = () => this.leave();
    try {
      this.release = this.sandbox.quota.openConnection();
    } catch (error) {
      this.count(error as Refusal);
      await this.refuse((error as Refusal).message);
      return;
    }
    try {
      if (!(await this.greet())) return;
      while (!this.stopping && (await this.respondToNext()));
    } catch (error) {
      // The client left in the middle of something, or what it says is not the protocol; or the fault is ours, and
      // then it ends this connection and no other. Upstream may be in the middle of something, too.
      this.upstreamConnection?.destroy();
      this.audit.fault(error as Error);
      await this.tellFault(error as Error);
    } finally {
      this.leave();
      this.hangUp();
    }
  }

  /** The client is gone: what was asked for it is asked no more. */
  private leave(): void {
    this.gone = true;
    const held = this.upstreamConnection;
    this.upstreamConnection = undefined;
    if (!held) return;
    if (this.busy) held.destroy();
    else this.sandbox.upstreams.keep(held);
  }

  /** The socket is closed. */
  private closed(): void {
    this.leave();
    this.linger?.clear();
    this.release?.();
    this.release = undefined;
  }

  /** Lets what was written go out; a client that does not hang up too is not waited for. */
  private hangUp(): void {
    if (this.release)
      this.linger = new Deadline(LINGER_SECONDS, () => {
        this.client.destroy();
        this.closed();
      });
    this.client.end();
  }

  /** Takes no further request; cuts off what is under way if `now`. */
  stop(now: boolean): void {
    this.stopping = true;
    if (now || !this.busy) this.client.destroy();
  }

  /** @returns false when the client was told why it cannot be served */
  private async greet(): Promise<boolean> {
    const deadline = new Deadline(GREETING_SECONDS, () => this.client.destroy());
    try {
      const { pool } = this.services;
      let trouble = this.sandbox.ended === undefined ? undefined : new Refusal(this.sandbox.ended);
      let { facts } = pool;
      try {
        facts ??= await pool.probe();
        if (trouble === undefined) await this.sandbox.begin();
      } catch (error) {
        trouble ??= troubleOf(error as Error);
      }
      const offered: Dialect = {
        minor: facts?.minor ?? NEWEST_MINOR,
        features: new Set([...(facts?.features ?? []), ...OWN_FEATURES]),
      };
      this.greeting = await this.agree(offered);
      this.audit.protocol = dialectName(this.greeting);
      if (this.greeting.tooOld)
        trouble = new Refusal(
          `this client speaks protocol 1.${this.greeting.minor}; nix-broker needs 1.${OLDEST_MINOR} (Nix 2.3) or newer`,
        );
      if (trouble !== undefined) {
        this.count(trouble);
        await this.sendError(trouble.message);
        this.audit.request("handshake", [], trouble, performance.now());
        return false;
      }
      this.encoder.u64(STDERR.last);
      await this.client.write(this.encoder.finish());
      return true;
    } finally {
      deadline.clear();
    }
  }

  /** Shakes hands: from now on this connection speaks the dialect that client and broker have both. */
  private async agree(offered: Dialect): Promise<ClientGreeting> {
    const greeting = await greetClient(
      new MessageReader(this.client, GREETING_BYTES),
      (message) => this.client.write(message),
      offered,
      VERSION_TEXT,
    );
    const { minor, features } = greeting;
    this.table = tableFor({ minor, features, storeDir: this.table.storeDir });
    return greeting;
  }

  /** @returns false at the end of the connection */
  private async respondToNext(): Promise<boolean> {
    const idle = new Deadline(this.sandbox.profile.limits.idle, () => {
      this.sandbox.quota.onLimit("idle");
      this.client.destroy();
    });
    const number = await this.reader.readOrEnd(operationNumber).finally(() => idle.clear());
    if (number === undefined) return false;
    this.busy = true;
    try {
      const operation = this.table.byNumber.get(number);
      if (!operation) return await this.refuseUnknown(number);
      return await this.respond(operation);
    } finally {
      this.busy = false;
    }
  }

  private async respond(operation: BoundOperation): Promise<boolean> {
    const started = performance.now();
    const before = this.reader.consumed;
    const request = await this.reader.read(operation.request);
    const exchange = this.exchange(operation);
    exchange.bytesIn = this.reader.consumed - before;
    let judged: Judged = { verdict: rules[operation.name].verdict, reason: "", upstreamError: undefined };
    let usable = true;
    try {
      const reply = await this.decide(operation.name, request, exchange);
      await exchange.body.drain();
      if (reply !== REPLIED) {
        this.encoder.u64(STDERR.last);
        operation.reply.encode(this.encoder, reply);
        const message = this.encoder.finish();
        exchange.bytesOut += message.length;
        await this.deliver(message);
      }
    } catch (error) {
      if (exchange.replying) this.client.destroy();
      const refusal = asRefusal(error, exchange);
      this.count(refusal);
      judged = refusal;
      usable = !refusal.fatal && !exchange.replying;
      if (!exchange.replying) {
        if (usable) await exchange.body.drain();
        await this.sendError(refusal.message, refusal.status);
      }
    } finally {
      if (operation.body !== "none") this.client.bulk(false);
    }
    const subjects = (rules[operation.name] as Rule).subjects?.(request as never) ?? [];
    this.audit.request(operation.name, subjects, judged, started, exchange);
    return usable;
  }

  /** @throws Refusal, NotInView, or what went wrong on the way. */
  private async decide(name: OperationName, request: unknown, exchange: Exchange): Promise<unknown> {
    const { sandbox } = this;
    if (sandbox.ended !== undefined) throw new Refusal(sandbox.ended);
    const { failure } = this.services.recorder;
    if (failure !== undefined)
      throw new Refusal(
        "nix-broker cannot write its audit log, so it serves nothing; the administrator must mend it",
        {
          reason: `the audit log cannot be written: ${failure}`,
        },
      );
    sandbox.quota.checkAuditRows();
    const refused = refuseOperation(name, sandbox.profile);
    if (refused !== undefined) throw new Refusal(`${name} is not allowed here: ${refused}`);
    if (exchange.body.kind !== "none") this.client.bulk(true);
    if (name === "SetOptions") {
      const dropped = heedOptions(this.options, request as RequestOf<"SetOptions">);
      if (dropped.length > 0) exchange.detail.settingsDropped = dropped;
    }
    const rule = rules[name] as Rule;
    if (sandbox.profile.admitFixedOutputs)
      await sandbox.admitFixedOutputs(rule.subjects?.(request as never) ?? []);
    if (rule.answer) return rule.answer(request as never, sandbox.view, this.table.minor);
    const forward = forwarders[name] as
      | ((exchange: Exchange, request: unknown) => Promise<unknown>)
      | undefined;
    if (!forward) throw new Refusal(`${name} is not allowed here`);
    return forward(exchange, request);
  }

  private exchange(operation: BoundOperation): Exchange {
    return {
      operation: operation.name,
      asker: this.audit.asker,
      sandbox: this.sandbox,
      table: this.table,
      clientMinor: this.greeting?.clientMinor ?? 0,
      client: this.client,
      clientReader: this.reader,
      body: new Body(operation.body, this.client, this.sandbox.profile.limits.bodyBytes),
      options: this.options,
      store: this.services.store,
      recorder: this.services.recorder,
      waits: this.services.waits,
      replying: false,
      intent: undefined,
      bytesIn: 0,
      bytesOut: 0,
      detail: {},
      upstream: () => this.upstream(),
    };
  }

  /** This client's own upstream connection; another one if the last one is gone or out of step. */
  private async upstream(): Promise<UpstreamConnection> {
    const held = this.upstreamConnection;
    if (held && !held.destroyed && !held.outOfStep) return held;
    held?.destroy();
    const features = new Set([...this.table.features].filter((feature) => !OWN_FEATURES.includes(feature)));
    const dialect: Dialect = { minor: this.table.minor, features };
    const kept = this.sandbox.upstreams.take(dialectName(dialect));
    const taken = kept ?? (await this.services.pool.take(dialect));
    if (this.gone) taken.destroy();
    this.upstreamConnection = taken;
    return taken;
  }

  /** How long its body is cannot be known, so the connection cannot go on. */
  private async refuseUnknown(number: number): Promise<false> {
    const reason = `operation ${number} is not one that nix-broker knows`;
    await this.sendError(reason);
    this.audit.request("unknown", [String(number)], denied(reason), performance.now());
    return false;
  }

  /** @param message text for people */
  private async sendError(message: string, status = 1): Promise<void> {
    const { minor } = this.table;
    this.encoder.u64(STDERR.error);
    logCodecs(this.table).error.encode(this.encoder, makeError(minor, toWireText(message), status));
    await this.deliver(this.encoder.finish());
  }

  /** Cuts off a client that does not read. */
  private async deliver(message: Buffer): Promise<void> {
    const waiting = this.client.write(message);
    if (!waiting) return;
    const deadline = new Deadline(this.sandbox.profile.limits.requestDeadline, () => {
      this.sandbox.quota.onLimit("requestDeadline");
      this.client.destroy();
    });
    await waiting.finally(() => deadline.clear());
  }

  /** A client that may not even have a connection still gets its reason, after a greeting. */
  async refuse(reason: string): Promise<void> {
    this.release = this.sandbox.quota.startRefusal();
    if (!this.release) {
      this.client.destroy();
      return;
    }
    const deadline = new Deadline(GREETING_SECONDS, () => this.client.destroy());
    try {
      await this.agree({ minor: NEWEST_MINOR, features: new Set() });
      await this.sendError(reason);
    } catch (error) {
      if (!isPeerFault(error)) throw error;
    } finally {
      deadline.clear();
      this.audit.refused(reason);
      this.hangUp();
    }
  }

  private count({ limit }: Refusal): void {
    if (limit) this.sandbox.quota.onLimit(limit);
  }

  /** Says why the connection is closed, where the protocol still allows it. What was half encoded is dropped. */
  private async tellFault(error: Error): Promise<void> {
    if (error instanceof TooLongError) this.sandbox.quota.onLimit("requestBytes");
    if (this.greeting === undefined) return;
    this.encoder.finish();
    const reason = isPeerFault(error)
      ? `nix-broker cannot read the request: ${error.message}${error instanceof TooLongError ? " (limits.request_bytes)" : ""}`
      : "nix-broker failed; its audit log says how";
    await this.sendError(reason).catch(() => undefined);
  }
}

/** A greeting is a few small messages; who takes longer has nothing to say. */
const GREETING_SECONDS = 60;
/** Greetings hold a few names of features: who may not even connect shall not make us hold more. */
const GREETING_BYTES = 64 * 1024;
/** How long a client has to read the last words. */
const LINGER_SECONDS = 2;
