/** What the service and the page tell each other over the WebSocket, as JSON. Types alone: the page imports them too. */
import type { RecordJson } from "../../audit/json-line.ts";
import type { SandboxSummary } from "../control/messages.ts";

/** The current state of the service. Counts are since its start. */
export interface WebState {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly requests: { readonly forward: number; readonly answer: number; readonly deny: number };
  readonly builds: { readonly running: number; readonly succeeded: number; readonly failed: number };
  readonly connections: number;
  readonly pool: number;
  readonly linker: number;
  readonly audit: { readonly head: number; readonly lagMs: number; readonly error: string | null };
}

/** The first message of every connection. */
export interface HelloMessage {
  readonly type: "hello";
  readonly version: string;
  /** Whether it goes on from the place in the chain that the page named. */
  readonly resumed: boolean;
  /** The last minutes, oldest first. */
  readonly history: readonly WebState[];
  /** Unless it was resumed: records from before those that follow, of sandboxes, builds and denials. */
  readonly before: readonly RecordJson[];
}

/** The next records, in the order of the chain. */
export interface RecordsMessage {
  readonly type: "records";
  readonly records: readonly RecordJson[];
}

/** Once a second. */
export interface StateMessage {
  readonly type: "state";
  readonly state: WebState;
  readonly sandboxes: readonly SandboxSummary[];
}

/** The newest records of the sandbox that the page asked for. */
export interface SandboxMessage {
  readonly type: "sandbox";
  readonly id: string;
  readonly records: readonly RecordJson[];
}

export type ServiceMessage = HelloMessage | RecordsMessage | StateMessage | SandboxMessage;

/** All that a page asks: the records of a sandbox. */
export interface SandboxQuestion {
  readonly type: "sandbox";
  readonly id: string;
}
