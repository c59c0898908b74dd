/** What failed of a request: upstream may refuse all of it, or some of the things it asked for. */
import type { AuditRecord, JsonObject, JsonValue } from "./record.ts";

/** One of several things that a request asked for, and that could not be had. */
export interface Failure {
  readonly path: string;
  /** What the client was told. */
  readonly reason: string;
  /** Upstream's own words, which the client may not have been told. */
  readonly upstreamError?: string;
}

/** What `detail.failures` lists: of `BuildPathsWithResults`, the builds whose results are failures. */
export function failuresOf({ detail }: Pick<AuditRecord, "detail">): Failure[] {
  const listed = detail?.failures;
  return Array.isArray(listed) ? listed.filter(isObject).map(failure) : [];
}

/** Whether it was tried and did not succeed, or only in part; what was denied was not tried. */
export function hasFailed(record: Pick<AuditRecord, "verdict" | "upstreamError" | "detail">): boolean {
  if (record.verdict === "deny") return false;
  return record.upstreamError !== undefined || failuresOf(record).length > 0;
}

function failure({ path, reason, upstreamError }: JsonObject): Failure {
  const words = text(upstreamError);
  return {
    path: text(path) ?? "",
    reason: text(reason) ?? "",
    ...(words === undefined ? {} : { upstreamError: words }),
  };
}

function text(value: JsonValue | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function isObject(value: JsonValue): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
