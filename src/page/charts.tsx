/** Counters over the last minutes, one sample a second. */
import { Component } from "preact";
import type { WebState } from "../service/web/messages.ts";
import { brief } from "./text.ts";

const WIDTH = 300;
const HEIGHT = 48;
/** So that the first minute after a start is not a thin line at the edge. */
const LEAST_SAMPLES = 60;

interface Curve {
  readonly name: string;
  readonly unit: string;
  readonly tone: string;
  value(now: WebState, before: WebState, seconds: number): number;
}

const CURVES: readonly Curve[] = [
  {
    name: "requests",
    unit: "/s",
    tone: "forward",
    value: (now, before, seconds) => (totalRequests(now) - totalRequests(before)) / seconds,
  },
  {
    name: "denied",
    unit: "/s",
    tone: "deny",
    value: (now, before, seconds) => (now.requests.deny - before.requests.deny) / seconds,
  },
  { name: "inner builds", unit: "", tone: "build", value: (now) => now.builds.running },
  { name: "connections", unit: "", tone: "answer", value: (now) => now.connections },
];

export function totalRequests({ requests }: WebState): number {
  return requests.forward + requests.answer + requests.deny;
}

interface ChartsProps {
  /** Oldest first. */
  readonly history: readonly WebState[];
}

/** Drawn anew when there is a new sample, and not otherwise. */
export class Charts extends Component<ChartsProps> {
  override shouldComponentUpdate({ history }: ChartsProps): boolean {
    return history !== this.props.history;
  }

  override render({ history }: ChartsProps) {
    return (
      <section id="charts" aria-label="Counters over time">
        {CURVES.map((curve) => (
          <Chart key={curve.name} curve={curve} history={history} />
        ))}
      </section>
    );
  }
}

function Chart({ curve: { name, unit, tone, value }, history }: ChartsProps & { readonly curve: Curve }) {
  const points = history.slice(1).map((now, index) => {
    const before = history[index] ?? now;
    // After a restart of the service the counters begin anew.
    return Math.max(0, value(now, before, Math.max(0.2, (now.time - before.time) / 1000)));
  });
  const most = Math.max(1, ...points);
  const step = WIDTH / (Math.max(LEAST_SAMPLES, points.length) - 1);
  const from = WIDTH - (points.length - 1) * step;
  const line = points.map(
    (point, index) =>
      `${(from + index * step).toFixed(1)},${(HEIGHT - 2 - (point / most) * (HEIGHT - 6)).toFixed(1)}`,
  );
  const area =
    points.length > 1 ? `M${from.toFixed(1)},${HEIGHT} L${line.join(" L")} L${WIDTH},${HEIGHT} Z` : "";
  return (
    <figure data-tone={tone}>
      <figcaption>
        <span>{name}</span>
        <b>
          {brief(points.at(-1) ?? 0)}
          {unit}
        </b>
        <small>peak {brief(most)}</small>
      </figcaption>
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        <path class="area" d={area} />
        <polyline class="line" points={line.join(" ")} />
      </svg>
    </figure>
  );
}
