/** All of one record. */
import type { ComponentChildren } from "preact";
import { escapeText, jsonText } from "../audit/escape.ts";
import { type Failure, failuresOf, hasFailed } from "../audit/failures.ts";
import { sizeText } from "../audit/figures.ts";
import type { RecordJson } from "../audit/json-line.ts";
import { CloseButton } from "./dialog.tsx";
import { duration, pathName } from "./text.ts";

interface DetailsProps {
  readonly record: RecordJson;
  showSandbox(id: string): void;
}

export function Details({ record, showSandbox }: DetailsProps) {
  const verdict = record.verdict ?? record.kind;
  const failed = hasFailed(record);
  const failures = failuresOf(record);
  // They have a line of their own.
  const { failures: _, ...detail } = record.detail ?? {};
  const { sandbox, durationUs, bytesIn, bytesOut = 0, upstreamError } = record;
  return (
    <>
      <h2 tabIndex={-1} autofocus data-verdict={verdict} data-failed={failed ? "" : undefined}>
        <span class="verdict">{failed ? `${verdict}, failed` : verdict}</span> {escapeText(record.op)}
      </h2>
      <dl>
        <Line name="reason">{record.reason && escapeText(record.reason)}</Line>
        <Line name="daemon's message">
          {upstreamError !== undefined && <pre>{escapeLines(upstreamError)}</pre>}
        </Line>
        <Line name="failed">
          {failures.map((failure) => (
            <FailureText key={failure.path} failure={failure} />
          ))}
        </Line>
        <Line name="subjects">
          {record.subjects.map((subject) => (
            <div key={subject}>{escapeText(subject)}</div>
          ))}
        </Line>
        <Line name="time">{record.time}</Line>
        <Line name="took">{durationUs !== undefined && duration(durationUs / 1000)}</Line>
        <Line name="bytes">
          {bytesIn !== undefined && `${sizeText(bytesIn)} in, ${sizeText(bytesOut)} out`}
        </Line>
        <Line name="repeated">{record.count > 1 && `${record.count} times`}</Line>
        <Line name="sandbox">
          {sandbox !== undefined && (
            <button type="button" class="as-link" onClick={() => showSandbox(sandbox)}>
              {sandbox}
            </button>
          )}
        </Line>
        <Line name="outer build">{record.outer && escapeText(record.outer)}</Line>
        <Line name="client">{client(record)}</Line>
        <Line name="intent">{record.intent !== undefined && `record ${record.intent}`}</Line>
        <Line name="detail">{Object.keys(detail).length > 0 && <pre>{jsonText(detail, 2)}</pre>}</Line>
        <Line name="number">{record.seq}</Line>
        <Line name="hash">{record.hash}</Line>
      </dl>
      <CloseButton />
    </>
  );
}

/** A name and its value, if there is any. */
function Line({ name, children }: { readonly name: string; readonly children?: ComponentChildren }) {
  const none = Array.isArray(children) ? children.length === 0 : !children;
  if (none) return null;
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  );
}

function FailureText({ failure: { path, reason, upstreamError } }: { readonly failure: Failure }) {
  return (
    <div class="failure">
      <b title={escapeText(path)}>{escapeText(pathName(path))}</b> {escapeText(reason)}
      {upstreamError !== undefined && <pre>{escapeLines(upstreamError)}</pre>}
    </div>
  );
}

function client({ uid, pid, connection, protocol }: RecordJson): string {
  return [
    uid === undefined ? "" : `uid ${uid}`,
    pid === undefined ? "" : `pid ${pid}`,
    connection === undefined ? "" : `connection ${connection}`,
    protocol === undefined ? "" : `protocol ${protocol}`,
  ]
    .filter(Boolean)
    .join(", ");
}

/** Escaped, except for its line ends. */
function escapeLines(text: string): string {
  return text.split("\n").map(escapeText).join("\n");
}
