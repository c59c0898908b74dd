// @ts-check
/** Counters over the last minutes, one sample a second. */
import { brief, element, shape } from "./dom.js";

const WIDTH = 300;
const HEIGHT = 48;
const SAMPLES = 300;
/** So that the first minute after a start is not a thin line at the edge. */
const LEAST_SAMPLES = 60;

/**
 * @typedef {object} State
 * @property {number} time
 * @property {{ forward: number, answer: number, deny: number }} requests
 * @property {{ running: number, succeeded: number, failed: number }} builds
 * @property {number} connections
 * @property {number} pool
 * @property {number} linker
 * @property {{ head: number, lagMs: number, error: string | null }} audit
 */

/** @typedef {{ name: string, unit: string, tone: string, value: (now: State, before: State, seconds: number) => number }} Curve */

/** @type {Curve[]} */
const CURVES = [
  {
    name: "requests",
    unit: "/s",
    tone: "forward",
    value: (now, before, seconds) => (total(now) - total(before)) / seconds,
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

/** @param {State} state */
export function total({ requests }) {
  return requests.forward + requests.answer + requests.deny;
}

/** @param {HTMLElement} host @param {State[]} states oldest first */
export function renderCharts(host, states) {
  const recent = states.slice(-SAMPLES);
  host.replaceChildren(...CURVES.map((curve) => chart(curve, recent)));
}

/** @param {Curve} curve @param {State[]} states */
function chart({ name, unit, tone, value }, states) {
  const points = [];
  for (let index = 1; index < states.length; index++) {
    const [before, now] = [states[index - 1], states[index]];
    // After a restart of the service the counters begin anew.
    if (before === undefined || now === undefined) continue;
    points.push(Math.max(0, value(now, before, Math.max(0.2, (now.time - before.time) / 1000))));
  }
  const most = Math.max(1, ...points);
  const step = WIDTH / (Math.max(LEAST_SAMPLES, points.length) - 1);
  const from = WIDTH - (points.length - 1) * step;
  const line = points.map(
    (point, index) =>
      `${(from + index * step).toFixed(1)},${(HEIGHT - 2 - (point / most) * (HEIGHT - 6)).toFixed(1)}`,
  );
  const area =
    points.length > 1 ? `M${from.toFixed(1)},${HEIGHT} L${line.join(" L")} L${WIDTH},${HEIGHT} Z` : "";
  const last = points.at(-1) ?? 0;
  return element(
    "figure",
    { "data-tone": tone },
    element(
      "figcaption",
      {},
      element("span", {}, name),
      element("b", {}, `${brief(last)}${unit}`),
      element("small", {}, `peak ${brief(most)}`),
    ),
    shape(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      shape("path", { class: "area", d: area }),
      shape("polyline", { class: "line", points: line.join(" ") }),
    ),
  );
}
