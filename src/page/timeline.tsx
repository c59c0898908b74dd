/** One sandbox from its beginning to its end: builds as bars, requests as marks, by what they did. */
import { Component } from "preact";
import { escapeText } from "../audit/escape.ts";
import { hasFailed } from "../audit/failures.ts";
import type { RecordJson } from "../audit/json-line.ts";
import { type Build, type Sandbox, sandboxName } from "./model.ts";
import { MOST_CHOSEN } from "./page-state.ts";
import { whyOf } from "./record-text.ts";
import { clock, derivationName, duration, pathName } from "./text.ts";

const WIDTH = 1000;
const LEFT = 92;
const RIGHT = 12;
const LANE = 30;
const LANES = [
  { name: "denied", verdict: "deny" },
  { name: "forwarded", verdict: "forward" },
  { name: "answered", verdict: "answer" },
] as const;
const BAR = 24;
const TOP = 26;
const MOST_BARS = 60;
const TICKS = 6;
/** Requests of a mark that its title tells. */
const MOST_TOLD = 8;
/** Thousands of records take a while to draw: no more often than this. */
const REDRAW_MS = 250;

interface TimelineProps {
  readonly sandbox: Sandbox | undefined;
  /** Of that sandbox, in their order. */
  readonly records: readonly RecordJson[];
  readonly hidden: boolean;
  readonly now: number;
}

/** The time that a drawing spans, and where a moment is in it. */
interface Scale {
  readonly until: number;
  readonly span: number;
  x(time: number): number;
}

export class Timeline extends Component<TimelineProps> {
  private drawn = 0;

  override shouldComponentUpdate({ sandbox, hidden, now }: TimelineProps): boolean {
    if (sandbox !== this.props.sandbox || hidden !== this.props.hidden) return true;
    return !hidden && now - this.drawn >= REDRAW_MS;
  }

  override render({ sandbox, records, hidden, now }: TimelineProps) {
    this.drawn = now;
    return (
      <div id="timeline" class="view scroll" role="tabpanel" hidden={hidden}>
        {sandbox === undefined ? (
          <p class="empty">Choose a sandbox to see its timeline.</p>
        ) : (
          !hidden && <Drawing key={sandbox.id} sandbox={sandbox} records={records} now={now} />
        )}
      </div>
    );
  }
}

interface DrawingProps {
  readonly sandbox: Sandbox;
  readonly records: readonly RecordJson[];
  readonly now: number;
}

function Drawing({ sandbox, records, now }: DrawingProps) {
  const until = sandbox.ended ?? now;
  const span = Math.max(1, until - sandbox.began);
  const scale: Scale = {
    until,
    span,
    x: (time) =>
      LEFT +
      ((Math.min(until, Math.max(sandbox.began, time)) - sandbox.began) / span) * (WIDTH - LEFT - RIGHT),
  };
  const bars = sandbox.builds.slice(-MOST_BARS);
  const lanesTop = TOP + bars.length * BAR + (bars.length > 0 ? 12 : 0);
  const height = lanesTop + LANES.length * LANE + 12;
  const reason = sandbox.reason === undefined ? "" : `: ${escapeText(sandbox.reason)}`;
  return (
    <>
      <div class="title">
        <b>{escapeText(sandboxName(sandbox))}</b>
        <span>{escapeText(sandbox.profile)}</span>
        <span>began {clock(new Date(sandbox.began).toISOString())}</span>
        <span>{sandbox.ended === undefined ? "running" : `ended after ${duration(span)}${reason}`}</span>
        <span>
          {records.length < MOST_CHOSEN ? "" : "the newest "}
          {records.length} records
        </span>
        <code>{sandbox.id}</code>
      </div>
      <svg viewBox={`0 0 ${WIDTH} ${height}`} role="img" aria-label="Timeline">
        {Array.from({ length: TICKS + 1 }, (_, tick) => (
          <Tick key={tick / TICKS} part={tick / TICKS} span={span} height={height} />
        ))}
        {bars.map((build, index) => (
          <Bar
            key={`${build.intent} ${build.derivation}`}
            build={build}
            y={TOP + index * BAR}
            scale={scale}
          />
        ))}
        {LANES.map(({ name, verdict }, index) => (
          <Lane
            key={verdict}
            name={name}
            marks={marksOf(
              records.filter((record) => record.verdict === verdict),
              scale,
            )}
            y={lanesTop + index * LANE}
          />
        ))}
      </svg>
    </>
  );
}

/** @param props.part of the time that is spanned, 0 to 1 */
function Tick({ part, span, height }: { part: number; span: number; height: number }) {
  const x = LEFT + part * (WIDTH - LEFT - RIGHT);
  return (
    <>
      <line class="grid" x1={x} x2={x} y1={18} y2={height} />
      <text class="axis" x={x} y={12} text-anchor={part === 1 ? "end" : part === 0 ? "start" : "middle"}>
        {part === 0 ? "0" : duration(span * part)}
      </text>
    </>
  );
}

function Bar({ build, y, scale }: { build: Build; y: number; scale: Scale }) {
  const took = build.took ?? scale.until - build.started;
  const from = scale.x(build.started);
  const to = Math.max(from + 3, scale.x(build.started + took));
  const label = `${escapeText(derivationName(build.derivation))} · ${duration(took)}`;
  const outside = to - from < label.length * 7;
  const before = outside && to + label.length * 7 > WIDTH;
  return (
    <>
      <rect class="bar" data-state={build.state} x={from} y={y} width={to - from} height={18} rx={4}>
        <title>{escapeText(build.derivation)}</title>
      </rect>
      <text
        class={outside ? "bar-name outside" : "bar-name"}
        x={before ? from - 6 : outside ? to + 6 : from + 7}
        y={y + 13}
        text-anchor={before ? "end" : "start"}
      >
        {label}
      </text>
    </>
  );
}

/** One or several requests at a place. */
interface Mark {
  readonly x: number;
  /** The first of them is shown when the mark is clicked; a failed one if there is any. */
  seq: number;
  verdict: string;
  failed: boolean;
  count: number;
  readonly told: string[];
}

/** Marks that would cover each other become one. */
function marksOf(records: readonly RecordJson[], scale: Scale): Mark[] {
  const marks = new Map<number, Mark>();
  for (const record of records) {
    const x = Math.round(scale.x(Date.parse(record.time)) / 5) * 5;
    const failed = hasFailed(record);
    let mark = marks.get(x);
    if (mark === undefined) {
      mark = { x, seq: record.seq, verdict: record.verdict ?? "", failed, count: 0, told: [] };
      marks.set(x, mark);
    } else if (failed && !mark.failed) {
      mark.seq = record.seq;
      mark.failed = true;
    }
    mark.count += record.count;
    if (mark.told.length < MOST_TOLD)
      mark.told.push(`${record.op} ${pathName(record.subjects[0] ?? "")} ${whyOf(record)}`.trim());
  }
  return [...marks.values()];
}

function Lane({ name, marks, y }: { name: string; marks: readonly Mark[]; y: number }) {
  return (
    <>
      <text class="lane" x={8} y={y + 19}>
        {name}
      </text>
      <line class="grid" x1={LEFT} x2={WIDTH - RIGHT} y1={y + LANE} y2={y + LANE} />
      {marks.map(({ x, seq, verdict, failed, count, told }) => {
        const tall = Math.min(22, 8 + 3 * Math.log2(count + 1));
        return (
          <rect
            key={x}
            class="mark"
            data-seq={seq}
            data-verdict={verdict}
            data-failed={failed ? "" : undefined}
            x={x - 2}
            y={y + (LANE - tall) / 2}
            width={4}
            height={tall}
            rx={2}
          >
            <title>{escapeText(told.join(" ⏎ "))}</title>
          </rect>
        );
      })}
    </>
  );
}
