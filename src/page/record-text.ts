/** What a record says in a row, in the search, and in the title of a mark. */
import { failuresOf, hasFailed } from "../audit/failures.ts";
import type { RecordJson } from "../audit/json-line.ts";
import { pathName } from "./text.ts";

/** Why it ended as it did; of several builds, why each failed. */
export function whyOf(record: RecordJson): string {
  const failures = failuresOf(record).map(
    ({ path, reason, upstreamError }) => `${pathName(path)}: ${upstreamError ?? reason}`,
  );
  // What upstream said of all of it says nothing that is not among them.
  const said = failures.length > 0 ? failures : [record.upstreamError];
  return [record.reason, ...said].filter(Boolean).join(" · ");
}

/** All that is searched, in lower case. */
export function searchText(record: RecordJson): string {
  return [
    record.op,
    record.verdict ?? record.kind,
    hasFailed(record) ? "failed" : "",
    whyOf(record),
    record.sandbox,
    record.outer,
    ...record.subjects,
  ]
    .join(" ")
    .toLowerCase();
}
