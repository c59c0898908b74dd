/**
 * Provenance as a picture: time from left to right, a lane for each build, nested ones within the frame of the build whose
 * sandbox they were asked for in; what was added hangs on its frame. One file without scripts, for light and dark.
 */

import { durationText } from "./figures.ts";
import { type ProvenanceBuild, type ProvenanceSource, walk } from "./provenance.ts";
import { outcome, shortName } from "./provenance-text.ts";
import { formatTime } from "./time.ts";

const WIDTH = 1120;
const MARGIN = 28;
const LANE = 34;
const BAR = 24;
const HEAD = 96;
const INSET = 9;
const CHARACTER = 7.1;
const SOURCES_SHOWN = 6;
const TICKS = 8;

const STYLE = `
.ground{fill:#f6f7fb}.paper{fill:#fff;stroke:#dfe4ee}.grid{stroke:#e6eaf3}.axis,.fact{fill:#79849c;font-size:11.5px}
.title{fill:#1b2333;font-size:20px;font-weight:650}.sub{fill:#5c6780;font-size:12.5px}
.frame{fill:#3f63b5;fill-opacity:.055;stroke:#3f63b5;stroke-opacity:.32}
.bar.built{fill:#23865a}.bar.failed{fill:#c22f3d}.bar.running{fill:#b0770d}.name{font-size:12.5px;font-weight:600;fill:#fff}
.name.outside{fill:#1b2333}.took{fill:#79849c;font-weight:400}.pin{fill:#8a63c8}.source{fill:#6b4aa5;font-size:11.5px}
@media (prefers-color-scheme:dark){.ground{fill:#10141c}.paper{fill:#171c27;stroke:#2a3242}.grid{stroke:#242b3a}.axis,.fact,.took{fill:#8793aa}
.title,.name.outside{fill:#e4e9f3}.sub{fill:#9aa6bd}.frame{fill:#7ea6f2;fill-opacity:.06;stroke:#7ea6f2;stroke-opacity:.35}
.bar.built{fill:#3fa777}.bar.failed{fill:#e2616d}.bar.running{fill:#d09a35}.pin{fill:#b493ea}.source{fill:#c3aaf0}}
text{font-family:system-ui,"Segoe UI","Cantarell","DejaVu Sans",sans-serif}`;

interface Drawing {
  readonly parts: string[];
  readonly x: (time: number) => number;
  /** Of what is still running. */
  readonly end: number;
  y: number;
}

/** The picture, as the text of an SVG file. */
export function provenanceSvg(root: ProvenanceBuild): string {
  const all = [...walk(root)].map(([build]) => build);
  const end = all.reduce((latest, { started, finished }) => Math.max(latest, started, finished ?? 0), 0);
  const span = Math.max(1, end - root.started);
  const right = WIDTH - MARGIN - 12;
  const left = MARGIN + 12;
  const x = (time: number): number =>
    left + (Math.max(0, Math.min(span, time - root.started)) / span) * (right - left);
  const drawing: Drawing = { parts: [], x, end, y: HEAD + 24 };
  draw(root, drawing, 0);
  const height = drawing.y + MARGIN + 6;
  const ticks = Array.from({ length: TICKS + 1 }, (_, tick) => {
    const at = left + (tick / TICKS) * (right - left);
    const anchor = tick === 0 ? "start" : tick === TICKS ? "end" : "middle";
    const label = tick === 0 ? "0" : durationText((span * tick) / TICKS / 1_000_000);
    return `<path class="grid" d="M${round(at)} ${HEAD + 10}V${round(height - MARGIN)}"/>${text("axis", at, HEAD + 2, label, anchor)}`;
  });
  const inner = all.length - 1;
  const sources = all.reduce((sum, { sandbox }) => sum + (sandbox?.sources.length ?? 0), 0);
  const denied = all.reduce((sum, { sandbox }) => sum + (sandbox?.denied ?? 0), 0);
  const facts = [
    `${inner} inner build${inner === 1 ? "" : "s"}`,
    `${sources} added source${sources === 1 ? "" : "s"}`,
    `${denied} request${denied === 1 ? "" : "s"} denied`,
    `began ${formatTime(root.started)
      .replace("T", " ")
      .replace(/\.\d+Z$/, " UTC")}`,
  ];
  const output = Object.values(root.outputs)[0] ?? root.derivation;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${round(height)}" viewBox="0 0 ${WIDTH} ${round(height)}" role="img">`,
    `<title>Provenance of ${escapeXml(output)}</title><style>${STYLE}</style>`,
    `<rect class="ground" width="100%" height="100%"/>`,
    `<rect class="paper" x="12" y="12" width="${WIDTH - 24}" height="${round(height - 24)}" rx="14"/>`,
    text("title", left, 46, clip(shortName(output), 80)),
    text("sub", left, 68, `${clip(output, 80)}   ·   ${facts.join("   ·   ")}`),
    ...ticks,
    ...drawing.parts,
    "</svg>",
    "",
  ].join("\n");
}

function draw(build: ProvenanceBuild, drawing: Drawing, depth: number): void {
  const { x, end } = drawing;
  const from = x(build.started);
  const to = Math.max(from + 4, x(build.finished ?? end));
  const { sandbox } = build;
  const framed = sandbox !== undefined && (sandbox.builds.length > 0 || sandbox.sources.length > 0);
  const place = drawing.parts.length;
  const top = drawing.y;
  bar(build, drawing, from, to);
  if (!framed) return;
  pins(sandbox.sources, drawing, from);
  for (const inner of sandbox.builds) draw(inner, drawing, depth + 1);
  const inset = Math.max(0, INSET - depth * 2);
  // Beneath what is in it.
  drawing.parts.splice(
    place,
    0,
    `<rect class="frame" x="${round(from - inset)}" y="${round(top - inset + 2)}" width="${round(to - from + 2 * inset)}" height="${round(drawing.y - top + 2 * inset - 8)}" rx="9"/>`,
  );
  drawing.y += inset;
}

function bar(build: ProvenanceBuild, drawing: Drawing, from: number, to: number): void {
  const y = drawing.y;
  const name = clip(shortName(build.derivation), 60);
  const took =
    build.finished === undefined ? "running" : durationText((build.finished - build.started) / 1_000_000);
  const asker =
    build.asker === undefined
      ? ""
      : `\nasked for by uid ${build.asker.uid ?? "?"}, pid ${build.asker.pid ?? "?"}`;
  const about = [build.derivation, ...Object.values(build.outputs)].join("\n") + asker;
  const needed = (name.length + took.length + 4) * CHARACTER;
  const fits = to - from > needed;
  const before = !fits && to + needed > WIDTH - MARGIN;
  const at = fits ? from + 10 : before ? from - 8 : to + 8;
  const label = `<tspan>${escapeXml(name)}</tspan><tspan class="${fits ? "" : "took"}" dx="8" ${fits ? 'fill-opacity=".8" font-weight="400"' : ""}>${escapeXml(took)}</tspan>`;
  drawing.parts.push(
    `<g><title>${escapeXml(about)}</title><rect class="bar ${outcome(build)}" x="${round(from)}" y="${round(y)}" width="${round(to - from)}" height="${BAR}" rx="6"/>`,
    `<text class="name${fits ? "" : " outside"}" x="${round(at)}" y="${round(y + 16.5)}" text-anchor="${before ? "end" : "start"}">${label}</text></g>`,
  );
  drawing.y += LANE;
}

/** What was added, each where its time is, with its name beside. */
function pins(sources: readonly ProvenanceSource[], drawing: Drawing, from: number): void {
  for (const source of sources.slice(0, SOURCES_SHOWN)) {
    const at = Math.max(from + 8, drawing.x(source.time));
    const name = clip(shortName(source.path), 50);
    const before = at + name.length * CHARACTER > WIDTH - MARGIN - 20;
    drawing.parts.push(
      `<g><title>${escapeXml(`${source.path}\nadded by ${source.operation}`)}</title><path class="pin" d="M${round(at)} ${round(drawing.y)}l5 5-5 5-5-5z"/>`,
      `${text("source", at + (before ? -10 : 10), drawing.y + 9, name, before ? "end" : "start")}</g>`,
    );
    drawing.y += 20;
  }
  const more = sources.length - SOURCES_SHOWN;
  if (more > 0) {
    drawing.parts.push(text("fact", from + 18, drawing.y + 9, `and ${more} more`));
    drawing.y += 20;
  }
  drawing.y += sources.length > 0 ? 4 : 0;
}

function text(style: string, x: number, y: number, content: string, anchor = "start"): string {
  return `<text class="${style}" x="${round(x)}" y="${round(y)}" text-anchor="${anchor}">${escapeXml(content)}</text>`;
}

function clip(name: string, most: number): string {
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

function round(number: number): string {
  return String(Math.round(number * 10) / 10);
}

/** Control characters may not be in XML at all. */
function escapeXml(value: string): string {
  return value
    .replace(/[^\t\n\x20-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]|[\u202a-\u202e\u2066-\u2069]/gu, "\ufffd")
    .replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
