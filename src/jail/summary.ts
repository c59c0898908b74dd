/** What a jail asked of the broker, in few lines: for `nix-broker jail --audit`. */
import { escapeText } from "../audit/escape.ts";
import { hasFailed } from "../audit/failures.ts";
import type { StoredRecord } from "../audit/record.ts";
import type { Verdict } from "../policy/rules.ts";

/** Denials that are told apart; a jail may cause any number. */
const MOST_DENIALS = 20;
const LONGEST_LINE = 300;

export class AuditSummary {
  private readonly requests: Record<Verdict, number> = { forward: 0, answer: 0, deny: 0 };
  private readonly builds = { done: 0, failed: 0 };
  private readonly denials = new Map<string, number>();
  private omitted = 0;

  /** Whether there was any request. */
  get isEmpty(): boolean {
    const { forward, answer, deny } = this.requests;
    return forward + answer + deny === 0;
  }

  add(records: readonly StoredRecord[]): void {
    for (const record of records) {
      const { kind, verdict, count = 1 } = record;
      if (kind === "build") this.builds[hasFailed(record) ? "failed" : "done"] += count;
      if (kind !== "request" || verdict === undefined) continue;
      this.requests[verdict] += count;
      if (verdict === "deny") this.addDenial(record, count);
    }
  }

  private addDenial({ op, subjects = [], reason = "" }: StoredRecord, count: number): void {
    const subject = subjects[0] === undefined ? "" : ` ${subjects[0]}`;
    const line = escapeText(`${op}${subject}: ${reason}`).slice(0, LONGEST_LINE);
    const before = this.denials.get(line);
    if (before === undefined && this.denials.size === MOST_DENIALS) this.omitted += count;
    else this.denials.set(line, (before ?? 0) + count);
  }

  lines(): string[] {
    const { forward, answer, deny } = this.requests;
    const { done, failed } = this.builds;
    return [
      `${forward + answer + deny} requests: ${answer} answered, ${forward} forwarded, ${deny} denied; builds: ${done} done, ${failed} failed`,
      ...[...this.denials].map(([line, count]) => `denied${count > 1 ? ` ${count} times` : ""}: ${line}`),
      ...(this.omitted > 0 ? [`denied: ${this.omitted} more`] : []),
    ];
  }
}
