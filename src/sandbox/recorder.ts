/** What a connection reports to the audit and the metrics. `service/` connects it to both. */

import type { Verdict } from "../policy/rules.ts";
import type { OperationName } from "../protocol/operations.ts";
import type { StorePath } from "../store/store-path.ts";
import type { Detail } from "./detail.ts";
import type { Sandbox } from "./sandbox.ts";

/** Who asks. */
export interface Asker {
  readonly sandbox: Sandbox;
  /** Numbers the connections while the service runs. */
  readonly connection: number;
  /** -1 where it is not known. */
  readonly uid: number;
  readonly pid: number;
  /** `1.34`, with features: `1.38+…`. */
  readonly protocol: string;
}

export interface RequestRecord {
  readonly asker: Asker;
  readonly operation: OperationName | "handshake" | "unknown";
  readonly subjects: readonly string[];
  readonly verdict: Verdict;
  /** What `intend` returned. */
  readonly intent: number | undefined;
  /** The reason, unless it was simply done. */
  readonly reason: string;
  readonly durationMs: number;
  /** Bulk data and request from the client; to the client. */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** Upstream's own message, which the client did not get. */
  readonly upstreamError: string | undefined;
  readonly detail: Readonly<Partial<Detail>> | undefined;
}

export interface BuildRecord {
  readonly asker: Asker;
  readonly derivation: StorePath;
  /** Output names and paths; empty when it failed. */
  readonly outputs: ReadonlyMap<string, StorePath>;
  readonly ok: boolean;
  readonly durationMs: number;
  /** What `intend` returned for the request that asked for it. */
  readonly intent: number | undefined;
}

/** A fixed output that nix-broker fetched, or tried to. */
export interface FetchRecord {
  readonly asker: Asker;
  readonly derivation: StorePath;
  readonly output: StorePath;
  /** Where it came from and what that redirected to; all that were tried if it failed. */
  readonly urls: readonly string[];
  readonly bytes: number;
  /** Why it failed, or "". */
  readonly reason: string;
  readonly durationMs: number;
  /** What `intend` returned for the request that needs it. */
  readonly intent: number | undefined;
}

export interface Recorder {
  /**
   * Records that a change of upstream is about to be requested. The record survives the end of the service at any moment.
   *
   * @returns the number of that record, for the request's own record
   * @throws Error when it cannot be recorded: then it must not be requested (G7)
   */
  intend(asker: Asker, operation: OperationName, subjects: readonly string[]): number;
  /** Resolves once all that was intended before survives power loss, too. @throws Error when it does not */
  synced(): Promise<void>;
  request(record: RequestRecord): void;
  build(record: BuildRecord): void;
  fetch(record: FetchRecord): void;
  /** Why nothing can be recorded now, or undefined. */
  readonly failure: string | undefined;
}
