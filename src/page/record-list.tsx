/** A list of records, newest first, of any length: only the rows in sight are elements. */
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { escapeText } from "../audit/escape.ts";
import { hasFailed } from "../audit/failures.ts";
import type { RecordJson } from "../audit/json-line.ts";
import type { RecordRows } from "./record-rows.ts";
import { whyOf } from "./record-text.ts";
import { clock, duration, pathHash, pathName } from "./text.ts";

/** Rows beyond what is in sight, above and below. */
const MARGIN = 6;

/** As in the style sheet. */
function rowHeight(): number {
  return matchMedia("(max-width: 760px)").matches ? 52 : 30;
}

interface RecordListProps {
  readonly id: string;
  readonly label: string;
  readonly rows: RecordRows;
  /** What is said when there are no rows. */
  readonly empty: string;
  readonly hidden: boolean;
}

export function RecordList({ id, label, rows, empty, hidden }: RecordListProps) {
  const scroller = useRef<HTMLDivElement>(null);
  const [sight, setSight] = useState({ top: 0, height: 0 });
  const seen = useRef({ added: 0, resets: 0, moves: 0 });
  const measure = (): void => {
    const { scrollTop = 0, clientHeight = 0 } = scroller.current ?? {};
    setSight((now) =>
      now.top === scrollTop && now.height === clientHeight ? now : { top: scrollTop, height: clientHeight },
    );
  };

  useLayoutEffect(() => {
    const observer = new ResizeObserver(measure);
    if (scroller.current !== null) observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    const { current: host } = scroller;
    if (host === null || hidden) return;
    const { added, resets, moves } = seen.current;
    seen.current = { added: rows.added, resets: rows.resets, moves: rows.moves };
    const height = rowHeight();
    if (rows.resets !== resets) host.scrollTop = 0;
    // Whoever has scrolled down reads on: what they see stays where it is.
    else if (host.scrollTop > height / 2) host.scrollTop += (rows.added - added) * height;
    if (rows.moves !== moves) bringIntoView(host, rows.selectedIndex * height, height);
    measure();
  });

  const height = rowHeight();
  const first = Math.max(0, Math.floor(sight.top / height) - MARGIN);
  const last = Math.min(rows.rows.length, Math.ceil((sight.top + sight.height) / height) + MARGIN);
  const shown: { record: RecordJson; top: number }[] = [];
  for (let index = first; index < last && !hidden; index++) {
    const record = rows.at(index);
    if (record !== undefined) shown.push({ record, top: index * height });
  }
  const selected = shown.some(({ record }) => record.seq === rows.selected);
  return (
    <div id={id} class="view" role="tabpanel" hidden={hidden}>
      <div
        class="scroll list"
        role="listbox"
        aria-label={label}
        aria-activedescendant={selected ? `${id}-${rows.selected}` : undefined}
        tabIndex={0}
        ref={scroller}
        onScroll={measure}
      >
        <div class="space" style={{ height: `${rows.rows.length * height}px` }}>
          {shown.map(({ record, top }) => (
            <Row
              key={record.seq}
              id={`${id}-${record.seq}`}
              record={record}
              top={top}
              chosen={record.seq === rows.selected}
            />
          ))}
        </div>
        <p class="empty" hidden={rows.rows.length > 0}>
          {empty}
        </p>
      </div>
    </div>
  );
}

function bringIntoView(host: HTMLElement, top: number, height: number): void {
  if (top < host.scrollTop) host.scrollTop = top;
  else if (top + height > host.scrollTop + host.clientHeight)
    host.scrollTop = top + height - host.clientHeight;
}

interface RowProps {
  readonly id: string;
  readonly record: RecordJson;
  readonly top: number;
  readonly chosen: boolean;
}

function Row({ id, record, top, chosen }: RowProps) {
  const verdict = record.verdict ?? record.kind;
  const subject = record.subjects[0] ?? "";
  const more = record.subjects.length > 1 ? ` +${record.subjects.length - 1}` : "";
  const failed = hasFailed(record);
  return (
    <div
      id={id}
      class={chosen ? "row chosen" : "row"}
      role="option"
      aria-selected={chosen}
      tabIndex={-1}
      data-seq={record.seq}
      data-verdict={verdict}
      data-failed={failed ? "" : undefined}
      style={{ transform: `translateY(${top}px)` }}
    >
      <time>{clock(record.time)}</time>
      <span class="verdict">{failed ? "failed" : verdict}</span>
      <span class="op">
        {escapeText(record.op)}
        {record.count > 1 ? ` ×${record.count}` : ""}
      </span>
      <span class="subject">
        <b>
          {escapeText(pathName(subject))}
          {more}
        </b>
        <i>{escapeText(pathHash(subject))}</i>
      </span>
      <span class="why">{escapeText(whyOf(record))}</span>
      <span class="took">{record.durationUs === undefined ? "" : duration(record.durationUs / 1000)}</span>
    </div>
  );
}
