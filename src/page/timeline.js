// @ts-check
/** One sandbox from its beginning to its end: builds as bars, requests as marks, by what they did. */
import { clock, duration, element, pathName, safe, sandboxName, shape } from "./dom.js";

/** @typedef {import("./model.js").AuditRecord} AuditRecord */
/** @typedef {import("./model.js").Sandbox} Sandbox */

const WIDTH = 1000;
const LEFT = 92;
const RIGHT = 12;
const LANE = 30;
const LANES = [
  { name: "denied", verdict: "deny" },
  { name: "forwarded", verdict: "forward" },
  { name: "answered", verdict: "answer" },
];
const MOST_BARS = 60;
const TICKS = 6;
/** Records of the chosen sandbox: as many as the service tells of one. */
export const MOST_CHOSEN = 5000;
/** Requests of a mark that its tooltip tells. */
const MOST_TOLD = 8;

/**
 * @param {HTMLElement} host
 * @param {Sandbox | undefined} sandbox
 * @param {readonly AuditRecord[]} records of that sandbox, in their order
 * @param {(record: AuditRecord) => void} open
 */
export function renderTimeline(host, sandbox, records, open) {
  if (sandbox === undefined) {
    host.replaceChildren(element("p", { class: "empty" }, "Choose a sandbox: its timeline is shown here."));
    return;
  }
  const until = sandbox.ended ?? Date.now();
  const span = Math.max(1, until - sandbox.began);
  /** @param {number} time */
  const x = (time) =>
    LEFT + ((Math.min(until, Math.max(sandbox.began, time)) - sandbox.began) / span) * (WIDTH - LEFT - RIGHT);
  const bars = sandbox.builds.slice(-MOST_BARS);
  const top = 26;
  const lanesTop = top + bars.length * 24 + (bars.length > 0 ? 12 : 0);
  const height = lanesTop + LANES.length * LANE + 12;
  const drawing = shape("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": "Timeline" });
  for (let tick = 0; tick <= TICKS; tick++) {
    const at = LEFT + (tick / TICKS) * (WIDTH - LEFT - RIGHT);
    const anchor = tick === TICKS ? "end" : tick === 0 ? "start" : "middle";
    drawing.append(
      shape("line", { class: "grid", x1: at, x2: at, y1: 18, y2: height }),
      shape(
        "text",
        { class: "axis", x: at, y: 12, "text-anchor": anchor },
        tick === 0 ? "0" : duration((span * tick) / TICKS),
      ),
    );
  }
  bars.forEach((build, index) => {
    const from = x(build.started);
    const to = Math.max(from + 3, x(build.started + (build.took ?? until - build.started)));
    const y = top + index * 24;
    const name = safe(pathName(build.derivation).replace(/\.drv$/, ""));
    const label = `${name} · ${duration(build.took ?? until - build.started)}`;
    const outside = to - from < label.length * 7;
    const before = outside && to + label.length * 7 > WIDTH;
    drawing.append(
      shape(
        "rect",
        { class: "bar", "data-state": build.state, x: from, y, width: to - from, height: 18, rx: 4 },
        shape("title", {}, safe(build.derivation)),
      ),
      shape(
        "text",
        {
          class: outside ? "bar-name outside" : "bar-name",
          x: before ? from - 6 : outside ? to + 6 : from + 7,
          y: y + 13,
          "text-anchor": before ? "end" : "start",
        },
        label,
      ),
    );
  });
  LANES.forEach(({ name, verdict }, index) => {
    const y = lanesTop + index * LANE;
    drawing.append(
      shape("text", { class: "lane", x: 8, y: y + 19 }, name),
      shape("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y + LANE, y2: y + LANE }),
    );
    drawing.append(
      ...marks(
        records.filter((record) => record.verdict === verdict),
        verdict,
        y,
        x,
        open,
      ),
    );
  });
  host.replaceChildren(
    element(
      "div",
      { class: "title" },
      element("b", {}, safe(sandboxName(sandbox))),
      element("span", {}, safe(sandbox.profile)),
      element("span", {}, `began ${clock(new Date(sandbox.began).toISOString())}`),
      element(
        "span",
        {},
        sandbox.ended === undefined
          ? "running"
          : `ended after ${duration(span)}${sandbox.reason ? `: ${safe(sandbox.reason)}` : ""}`,
      ),
      element("span", {}, `${records.length < MOST_CHOSEN ? "" : "the newest "}${records.length} records`),
      element("code", {}, sandbox.id),
    ),
    drawing,
  );
}

/**
 * Marks that would cover each other become one.
 *
 * @param {AuditRecord[]} records
 * @param {string} verdict
 * @param {number} y
 * @param {(time: number) => number} x
 * @param {(record: AuditRecord) => void} open
 */
function marks(records, verdict, y, x, open) {
  /** @type {Map<number, { count: number, told: AuditRecord[] }>} */
  const places = new Map();
  for (const record of records) {
    const place = Math.round(x(Date.parse(record.time)) / 5) * 5;
    const here = places.get(place) ?? { count: 0, told: [] };
    here.count += record.count;
    if (here.told.length < MOST_TOLD) here.told.push(record);
    places.set(place, here);
  }
  return [...places].map(([place, { count, told }]) => {
    const [first] = told;
    const text = told.map(({ op, subjects, reason }) =>
      `${op} ${pathName(subjects[0] ?? "")} ${reason ?? ""}`.trim(),
    );
    const tall = Math.min(22, 8 + 3 * Math.log2(count + 1));
    const mark = shape(
      "rect",
      {
        class: "mark",
        "data-verdict": verdict,
        x: place - 2,
        y: y + (LANE - tall) / 2,
        width: 4,
        height: tall,
        rx: 2,
      },
      shape("title", {}, safe(text.join(" ⏎ "))),
    );
    mark.addEventListener("click", () => first && open(first));
    return mark;
  });
}
