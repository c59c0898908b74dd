/**
 * A request that gets an error instead of a reply. The text is ours, made from the request alone, because it
 * goes to the client; what upstream said stays in `upstreamError`, for the audit.
 */
import type { LimitName } from "../policy/limits.ts";
import type { Verdict } from "../policy/rules.ts";

export interface RefusalDetails {
  /** The verdict for the audit: `deny`, unless the policy allowed the request and it failed. */
  readonly verdict?: Verdict;
  /** For the audit, if the client must not be told as much. */
  readonly reason?: string;
  readonly upstreamError?: string;
  /** Upstream has answered in full: its connection can take the next request. */
  readonly upstreamInStep?: boolean;
  /** The client's connection is out of step or gone, and is closed after the error. */
  readonly fatal?: boolean;
  /** The client's exit code, where the protocol has it (before 1.26); 1 if not given. */
  readonly status?: number;
  /** The limit that was reached, for the metrics. */
  readonly limit?: LimitName;
}

export class Refusal extends Error {
  override name = "Refusal";
  readonly verdict: Verdict;
  readonly reason: string;
  readonly upstreamError: string | undefined;
  readonly upstreamInStep: boolean;
  readonly fatal: boolean;
  readonly status: number;
  readonly limit: LimitName | undefined;

  /** @param message for the client, as text for people */
  constructor(message: string, details: RefusalDetails = {}) {
    super(message);
    this.verdict = details.verdict ?? "deny";
    this.reason = details.reason ?? message;
    this.upstreamError = details.upstreamError;
    this.upstreamInStep = details.upstreamInStep ?? false;
    this.fatal = details.fatal ?? false;
    this.status = details.status ?? 1;
    this.limit = details.limit;
  }
}

/** As whole sentences, which docs/troubleshooting.md quotes. */
const tooLongTexts = {
  textBytes: (bytes: number) => `the text is longer than ${bytes} bytes (limits.text_bytes)`,
  bodyBytes: (bytes: number) => `the contents are longer than ${bytes} bytes (limits.body_bytes)`,
};

/** @param bytes what the limit is, for this sandbox */
export function tooLong(limit: keyof typeof tooLongTexts, bytes: number): Refusal {
  return new Refusal(tooLongTexts[limit](bytes), { limit });
}
