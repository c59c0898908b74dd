/** What `nix-broker status` counts, on its way to the metrics; and the newest inner builds of each sandbox. */
import type { LimitName } from "../../policy/limits.ts";
import type { Verdict } from "../../policy/rules.ts";
import type { BuildRecord } from "../../sandbox/recorder.ts";
import type { Sandbox } from "../../sandbox/sandbox.ts";
import type { WaitReason } from "../../sandbox/waits.ts";
import type { Counters } from "../counters.ts";
import type { InnerBuild } from "./messages.ts";

const KEPT_BUILDS = 200;
/** Of each: so all of them fit into a message, and take little memory, however many outputs clients ask for. */
const KEPT_OUTPUTS = 10;

export class ControlTally implements Counters {
  readonly requests: Record<Verdict, number> = { forward: 0, answer: 0, deny: 0 };
  readonly builds = { succeeded: 0, failed: 0 };
  readonly limitsHit: Partial<Record<LimitName, number>> = {};
  private readonly next: Counters;
  private readonly ended = new WeakMap<Sandbox, InnerBuild[]>();

  /** @param next also gets everything */
  constructor(next: Counters) {
    this.next = next;
  }

  request(operation: string, verdict: Verdict, seconds: number, bytesIn: number, bytesOut: number): void {
    this.requests[verdict]++;
    this.next.request(operation, verdict, seconds, bytesIn, bytesOut);
  }

  build(ok: boolean, seconds: number): void {
    this.builds[ok ? "succeeded" : "failed"]++;
    this.next.build(ok, seconds);
  }

  limitHit(limit: LimitName): void {
    this.limitsHit[limit] = (this.limitsHit[limit] ?? 0) + 1;
    this.next.limitHit(limit);
  }

  waitRefused(reason: WaitReason): void {
    this.next.waitRefused(reason);
  }

  logLinesDropped(lines: number): void {
    this.next.logLinesDropped(lines);
  }

  /** Keeps an inner build for the details of its sandbox. */
  buildEnded({ asker, derivation, outputs, ok, durationMs }: BuildRecord): void {
    const builds = this.ended.get(asker.sandbox) ?? [];
    this.ended.set(asker.sandbox, builds);
    builds.push({
      derivation,
      ok,
      outputs: Object.fromEntries([...outputs].slice(0, KEPT_OUTPUTS)),
      seconds: durationMs / 1000,
      endedAt: new Date().toISOString(),
    });
    if (builds.length > KEPT_BUILDS) builds.shift();
  }

  /** The newest inner builds of a sandbox that ended, oldest first. */
  buildsOf(sandbox: Sandbox): readonly InnerBuild[] {
    return this.ended.get(sandbox) ?? [];
  }
}
