/** What one client's connection records in the audit: each request, and errors between them. */
import type { Verdict } from "../policy/rules.ts";
import { EndOfStream } from "../protocol/byte-stream.ts";
import type { OperationName } from "../protocol/operations.ts";
import type { Exchange } from "./forward/exchange.ts";
import type { Asker, Recorder } from "./recorder.ts";
import type { Sandbox } from "./sandbox.ts";
import { isPeerFault } from "./told-errors.ts";

export interface Judged {
  readonly verdict: Verdict;
  readonly reason: string;
  readonly upstreamError: string | undefined;
}

export function denied(reason: string): Judged {
  return { verdict: "deny", reason, upstreamError: undefined };
}

type Recorded = OperationName | "handshake" | "unknown";

export class ConnectionAudit {
  private readonly sandbox: Sandbox;
  private readonly recorder: Recorder;
  private readonly number: number;
  private readonly peer: { readonly pid: number; readonly uid: number } | undefined;
  /** The dialect, as `Asker` has it; empty until the client has greeted. */
  protocol = "";

  /** @param number of the connection */
  constructor(
    sandbox: Sandbox,
    recorder: Recorder,
    number: number,
    peer: { readonly pid: number; readonly uid: number } | undefined,
  ) {
    this.sandbox = sandbox;
    this.recorder = recorder;
    this.number = number;
    this.peer = peer;
  }

  get greeted(): boolean {
    return this.protocol !== "";
  }

  get asker(): Asker {
    const { sandbox, number, peer, protocol } = this;
    return { sandbox, connection: number, uid: peer?.uid ?? -1, pid: peer?.pid ?? -1, protocol };
  }

  /** @param started by `performance.now()` */
  request(
    operation: Recorded,
    subjects: readonly string[],
    judged: Judged,
    started: number,
    exchange?: Exchange,
  ): void {
    if (this.sandbox.quota.countAuditRow(subjects))
      this.write(operation, subjects, judged, started, exchange);
  }

  /**
   * A client that may not have a connection: not counted among the sandbox's own rows, which strangers must
   * not use up.
   */
  refused(reason: string): void {
    if (this.sandbox.quota.recordsRefusal())
      this.write("handshake", [], denied(reason), performance.now(), undefined);
  }

  /** What ended the connection. A client that leaves before the greeting is not recorded. */
  fault(error: Error): void {
    const { greeted } = this;
    if (error instanceof EndOfStream && !greeted) return;
    const reason = isPeerFault(error)
      ? error.message
      : `an internal error of nix-broker: ${error.stack ?? error.message}`;
    this.request(greeted ? "unknown" : "handshake", [], denied(reason), performance.now());
  }

  private write(
    operation: Recorded,
    subjects: readonly string[],
    { verdict, reason, upstreamError }: Judged,
    started: number,
    exchange: Exchange | undefined,
  ): void {
    const detail = exchange && Object.keys(exchange.detail).length > 0 ? exchange.detail : undefined;
    this.recorder.request({
      asker: this.asker,
      operation,
      subjects,
      verdict,
      reason,
      upstreamError,
      intent: exchange?.intent,
      durationMs: performance.now() - started,
      bytesIn: exchange ? exchange.bytesIn + exchange.body.length : 0,
      bytesOut: exchange?.bytesOut ?? 0,
      detail,
    });
  }
}
