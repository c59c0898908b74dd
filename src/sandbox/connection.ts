/**
 * One client connection, from greeting to end: start reading at `serve`. `respond.ts` handles each request,
 * `decide.ts` decides about it.
 */
import { longestRequest } from "../policy/memory.ts";
import { ByteStreamError } from "../protocol/byte-stream.ts";
import { u64 } from "../protocol/codec.ts";
import { compile } from "../protocol/compile.ts";
import { tableFor } from "../protocol/dialect-table.ts";
import { MessageReader } from "../protocol/message-reader.ts";
import { dialectName, type Feature, NEWEST_MINOR } from "../protocol/version.ts";
import { TooLongError } from "../protocol/wire.ts";
import { noOptions } from "./client-options.ts";
import { ConnectionAudit, denied } from "./connection-audit.ts";
import { Deadline } from "./deadline.ts";
import type { Fetchers } from "./fetchers.ts";
import {
  agree,
  GREETING_SECONDS,
  makeOffer,
  NOTHING_OFFERED,
  refuseOld,
  upstreamDialect,
} from "./greeting.ts";
import type { MemoryBudget } from "./memory-budget.ts";
import type { Recorder } from "./recorder.ts";
import type { Refusal } from "./refusal.ts";
import { Replies } from "./replies.ts";
import { MOST_ELEMENTS } from "./request-bounds.ts";
import { RequestMemory } from "./request-memory.ts";
import { type Client, respond } from "./respond.ts";
import type { Sandbox } from "./sandbox.ts";
import { isPeerFault } from "./told-errors.ts";
import type { Transport } from "./upstream/connection.ts";
import { OwnUpstream } from "./upstream/own.ts";
import type { UpstreamPool } from "./upstream/pool.ts";
import type { UpstreamStore } from "./upstream/store.ts";
import type { Waits } from "./waits.ts";

/** The client's end; `host/byte-stream.ts` is one. */
export interface ClientTransport extends Transport {
  readonly peer?: { readonly pid: number; readonly uid: number } | undefined;
  /** Whether the client is gone: one that sends no more may still read. */
  readonly hungUp: boolean;
  end(): void;
}

/**
 * Of the byte streams of clients: they may send as much in one piece as `limits.request_bytes` of their
 * profile says.
 */
export const CLIENT_STREAM = { maxBuffer: Number.POSITIVE_INFINITY };

export interface ConnectionServices {
  readonly pool: UpstreamPool;
  readonly store: UpstreamStore;
  readonly recorder: Recorder;
  readonly waits: Waits;
  readonly fetchers: Fetchers;
  readonly memory: MemoryBudget;
}

const NO_TABLE = { minor: NEWEST_MINOR, features: new Set<Feature>(), storeDir: "" };
const operationNumber = compile(u64, NO_TABLE);

export class Connection {
  private readonly client: ClientTransport;
  readonly sandbox: Sandbox;
  private readonly services: ConnectionServices;
  private readonly audit: ConnectionAudit;
  private readonly reader: MessageReader;
  private readonly replies: Replies;
  private readonly memory: RequestMemory;
  private readonly upstream: OwnUpstream;
  /** Set while a request is in progress; a graceful stop waits for it. */
  busy = false;
  private stopping = false;
  /**
   * Stops counting the client; undefined once its socket is closed. A lingering client counts, because it
   * holds a descriptor.
   */
  private release: (() => void) | undefined;
  private linger: Deadline | undefined;
  private leaving: NodeJS.Timeout | undefined;
  private isGone = false;
  private quiet: Deadline | undefined;
  private idle: Deadline | undefined;

  constructor(client: ClientTransport, sandbox: Sandbox, services: ConnectionServices, number: number) {
    this.client = client;
    this.sandbox = sandbox;
    this.services = services;
    this.audit = new ConnectionAudit(sandbox, services.recorder, number, client.peer);
    const { limits } = sandbox.profile;
    this.memory = new RequestMemory(services.memory, {
      owner: sandbox.quota,
      longest: longestRequest(limits),
      cutOff: () => client.destroy(tooSlow()),
    });
    this.reader = new MessageReader(client, limits.requestBytes, {
      pace: sandbox.pace,
      mostElements: MOST_ELEMENTS,
      room: this.memory,
    });
    this.replies = new Replies(client, sandbox, tableFor({ ...NO_TABLE, storeDir: sandbox.view.storeDir }));
    this.upstream = new OwnUpstream(sandbox.upstreams, services.pool);
    client.onClose = () => this.closed();
  }

  /** Serves the client until it leaves. Never throws. */
  async serve(): Promise<void> {
    this.client.onEnd = () => this.watchLeaving();
    try {
      this.release = this.sandbox.quota.openConnection();
    } catch (error) {
      this.count(error as Refusal);
      await this.refuse((error as Refusal).message);
      return;
    }
    try {
      const client = await this.greet();
      while (client && (await this.respondToNext(client)));
    } catch (error) {
      // The client left in the middle of something or violated the protocol; or it is our own bug, which ends
      // only this connection. Upstream may be in the middle of something, too.
      this.upstream.destroy();
      this.audit.fault(error as Error);
      await this.reportError(error as Error);
    } finally {
      this.leave();
      this.hangUp();
    }
  }

  /** A client that may not even have a connection still gets its reason, after a greeting. Never throws. */
  async refuse(reason: string): Promise<void> {
    this.release = this.sandbox.quota.startRefusal();
    if (!this.release) {
      this.client.destroy();
      return;
    }
    const deadline = new Deadline(GREETING_SECONDS, () => this.client.destroy());
    try {
      await agree(this.client, this.replies, NOTHING_OFFERED);
      await this.replies.error(reason);
    } catch (error) {
      // Nobody waits for this: what is our own bug may end this connection alone.
      if (!isPeerFault(error)) this.audit.fault(error as Error);
    } finally {
      deadline.clear();
      this.audit.refused(reason);
      this.hangUp();
    }
  }

  /** Ends as soon as the client asks nothing: commands send several requests in quick succession. At once if `now`. */
  stop(now: boolean): void {
    this.stopping = true;
    if (now) this.client.destroy();
    else if (!this.busy) this.endWhenQuiet();
  }

  private endWhenQuiet(): void {
    this.quiet ??= new Deadline(QUIET_SECONDS, () => this.client.destroy());
  }

  /** The time runs on while a request is in progress, and begins anew after it. */
  private endIdle(): void {
    if (this.busy) return;
    this.sandbox.quota.onLimit("idle");
    this.client.destroy();
  }

  /** The client asks nothing more. It has what it asked, unless it is gone, which nothing tells of then. */
  private watchLeaving(): void {
    const look = (): void => {
      if (!this.client.hungUp) return;
      clearInterval(this.leaving);
      this.isGone = true;
      this.leave();
    };
    look();
    if (!this.isGone) this.leaving = setInterval(look, LOOK_MS);
  }

  /** The client is gone: requests made for it are abandoned. */
  private leave(): void {
    this.upstream.leave(this.busy);
  }

  /** The socket is closed. */
  private closed(): void {
    this.leave();
    clearInterval(this.leaving);
    this.memory.leave();
    this.linger?.clear();
    this.quiet?.clear();
    this.idle?.clear();
    this.release?.();
    this.release = undefined;
  }

  /** Sends what was written, but does not wait for a client that does not hang up. */
  private hangUp(): void {
    this.idle?.clear();
    if (this.isGone) {
      this.client.destroy();
      return;
    }
    if (this.release)
      this.linger = new Deadline(LINGER_SECONDS, () => {
        this.client.destroy();
        this.closed();
      });
    this.client.end();
  }

  /** @returns undefined when the client was told why it cannot be served */
  private async greet(): Promise<Client | undefined> {
    const deadline = new Deadline(GREETING_SECONDS, () => this.client.destroy());
    try {
      const offer = await makeOffer(this.sandbox, this.services.pool);
      const greeting = await agree(this.client, this.replies, offer.dialect);
      this.audit.protocol = dialectName(greeting);
      const trouble = refuseOld(greeting) ?? offer.trouble;
      if (trouble === undefined) {
        await this.replies.welcome();
        return this.served(greeting.clientMinor);
      }
      this.count(trouble);
      await this.replies.error(trouble.message);
      this.audit.request("handshake", [], trouble, performance.now());
      return undefined;
    } finally {
      deadline.clear();
    }
  }

  private served(minor: number): Client {
    const { client, reader, replies, audit, sandbox, memory } = this;
    const { store, recorder, waits, fetchers } = this.services;
    const dialect = upstreamDialect(replies.table);
    return {
      transport: client,
      reader,
      replies,
      audit,
      sandbox,
      store,
      recorder,
      waits,
      fetchers,
      budget: this.services.memory,
      memory,
      options: noOptions(),
      minor,
      upstream: () => this.upstream.take(dialect),
    };
  }

  /** @returns false at the end of the connection */
  private async respondToNext(client: Client): Promise<boolean> {
    this.idle ??= new Deadline(this.sandbox.profile.limits.idle, () => this.endIdle());
    this.idle.alive();
    // A client that does not wait for replies may have sent thousands of requests.
    const eager = this.client.available.length > 0;
    const number = await this.reader.readOrEnd(operationNumber);
    if (number === undefined) return false;
    this.busy = true;
    this.quiet?.clear();
    this.quiet = undefined;
    try {
      const { pace } = this.sandbox;
      const takesTime = eager || this.client.available.length > SHORT_REQUEST;
      if (takesTime && pace.due) await pace.pause();
      const operation = this.replies.table.byNumber.get(number);
      return operation ? await respond(client, operation) : await this.refuseUnknown(number);
    } finally {
      this.busy = false;
      this.memory.release();
      if (this.stopping) this.endWhenQuiet();
    }
  }

  /** The length of its body is unknown, so the connection cannot continue. */
  private async refuseUnknown(number: number): Promise<false> {
    const reason = `operation ${number} is not one that nix-broker knows`;
    await this.replies.error(reason);
    this.audit.request("unknown", [String(number)], denied(reason), performance.now());
    return false;
  }

  private count({ limit }: Refusal): void {
    if (limit) this.sandbox.quota.onLimit(limit);
  }

  /** Tells why the connection is closed, if the protocol still allows it. */
  private async reportError(error: Error): Promise<void> {
    if (error instanceof TooLongError) this.sandbox.quota.onLimit("requestBytes");
    if (!this.audit.greeted) return;
    const reason = isPeerFault(error)
      ? `nix-broker cannot read the request: ${error.message}${error instanceof TooLongError ? " (limits.request_bytes)" : ""}`
      : "nix-broker failed; its audit log says how";
    await this.replies.error(reason).catch(() => undefined);
  }
}

function tooSlow(): ByteStreamError {
  return new ByteStreamError(
    "too-slow",
    "cut off: other requests waited too long for the memory that this one held (runtime.memory)",
  );
}

/** Longer requests wait for their turn before they are read. Bytes. */
const SHORT_REQUEST = 2048;
/** How long a client may take from one request to the next while the service is stopping. */
const QUIET_SECONDS = 0.3;
/** How often a client that sends no more is looked at. */
const LOOK_MS = 200;
/** How long a client has to read the last words. */
const LINGER_SECONDS = 2;
