/** What the broker counts; `metrics.ts` has the Prometheus form of it. */
import type { LimitName } from "../policy/limits.ts";
import type { Verdict } from "../policy/rules.ts";
import type { WaitReason } from "../sandbox/waits.ts";

export interface Counters {
  /** @param operation from our own tables, never a client's text */
  request(operation: string, verdict: Verdict, seconds: number, bytesIn: number, bytesOut: number): void;
  build(ok: boolean, seconds: number): void;
  limitHit(limit: LimitName): void;
  waitRefused(reason: WaitReason): void;
  logLinesDropped(lines: number): void;
}

/** For a process whose metrics nobody scrapes. */
export const noCounters: Counters = {
  request() {},
  build() {},
  limitHit() {},
  waitRefused() {},
  logLinesDropped() {},
};
