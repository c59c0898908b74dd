/** Provenance for a terminal, and as a graph for Graphviz. */
import { escapeText } from "./escape.ts";
import { durationText } from "./figures.ts";
import { type ProvenanceBuild, walk } from "./provenance.ts";
import { formatTime } from "./time.ts";

/** The name of a store path, without folder, hash and `.drv`. */
export function shortName(path: string): string {
  const base = path.slice(path.lastIndexOf("/") + 1);
  return base.replace(/^[0-9a-z]{32}-/, "").replace(/\.drv$/, "");
}

/** How a build ended, in a word. */
export function outcome({ ok }: ProvenanceBuild): "built" | "failed" | "running" {
  if (ok === undefined) return "running";
  return ok ? "built" : "failed";
}

/** The tree, one fact a line. */
export function provenanceText(root: ProvenanceBuild): string {
  const lines: string[] = [];
  write(root, "", "", lines);
  return lines.map((line) => line.trimEnd()).join("\n");
}

function write(build: ProvenanceBuild, first: string, rest: string, lines: string[]): void {
  const { derivation, outputs, started, finished, asker, sandbox } = build;
  const took = finished === undefined ? "" : `, ${durationText((finished - started) / 1_000_000)}`;
  lines.push(`${first}${escapeText(derivation)}  (${outcome(build)}${took})`);
  const inner = sandbox?.builds ?? [];
  const bar = inner.length > 0 || (sandbox?.sources.length ?? 0) > 0 ? "│   " : "    ";
  const fact = (name: string, value: string): void => {
    lines.push(`${rest}${bar}${name.padEnd(8)}${escapeText(value)}`);
  };
  for (const path of Object.values(outputs)) fact("output", path);
  fact("began", formatTime(started));
  if (asker !== undefined)
    fact("asked by", ` uid ${asker.uid ?? "?"}, pid ${asker.pid ?? "?"} in sandbox ${asker.sandbox}`);
  if (sandbox === undefined) return;
  fact(
    "sandbox",
    `${sandbox.id}, profile ${sandbox.profile}, ${sandbox.requests} requests, ${sandbox.denied} denied`,
  );
  const sources = sandbox.sources.map(({ path }) => `added   ${escapeText(path)}`);
  sources.forEach((source, index) => {
    const last = index === sources.length - 1 && inner.length === 0;
    lines.push(`${rest}${last ? "└── " : "├── "}${source}`);
  });
  inner.forEach((child, index) => {
    const last = index === inner.length - 1;
    write(child, `${rest}${last ? "└── " : "├── "}`, `${rest}${last ? "    " : "│   "}`, lines);
  });
}

/** The same as a graph in Graphviz' language: an arrow leads from what was used to the result. */
export function provenanceDot(root: ProvenanceBuild): string {
  const lines = [
    "digraph provenance {",
    '  rankdir = "LR";',
    '  node [shape = "box", style = "rounded,filled", fontname = "sans-serif", fillcolor = "#eef3fc"];',
  ];
  const names = new Map<ProvenanceBuild, string>();
  for (const [build] of walk(root)) {
    const name = `build${names.size}`;
    names.set(build, name);
    const colour = { built: "#e6f4ec", failed: "#fdebed", running: "#fdf3df" }[outcome(build)];
    lines.push(
      `  ${name} [label = ${quoted(shortName(build.derivation))}, tooltip = ${quoted(build.derivation)}, fillcolor = "${colour}"];`,
    );
  }
  const sources = new Map<string, string>();
  for (const [build] of walk(root)) {
    for (const { path } of build.sandbox?.sources ?? []) {
      let name = sources.get(path);
      if (name === undefined) {
        name = `source${sources.size}`;
        sources.set(path, name);
        lines.push(
          `  ${name} [label = ${quoted(shortName(path))}, tooltip = ${quoted(path)}, shape = "note", fillcolor = "#f4f4f0"];`,
        );
      }
      lines.push(`  ${name} -> ${names.get(build)} [style = "dashed"];`);
    }
    for (const inner of build.sandbox?.builds ?? [])
      lines.push(`  ${names.get(inner)} -> ${names.get(build)};`);
  }
  return [...lines, "}"].join("\n");
}

function quoted(text: string): string {
  return `"${escapeText(text).replaceAll('"', '\\"')}"`;
}
