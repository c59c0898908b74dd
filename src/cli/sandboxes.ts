import { Command } from "commander";
import { escapeText, jsonText } from "../audit/escape.ts";
import { agoText, durationText, sizeText } from "../audit/figures.ts";
import type { PathList, SandboxDetails, SandboxSummary } from "../service/control/messages.ts";
import { askRunningService } from "./ask-service.ts";
import { configOption, jsonOption } from "./options.ts";
import { alignedColumns } from "./table.ts";

interface Options {
  readonly config?: string;
  readonly json?: true;
}

const ID_SHOWN = 12;

function shortId(id: string | null): string {
  return id?.slice(0, ID_SHOWN) ?? "";
}

/** `hash-name` without the store's folder. */
function baseOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** The name of a derivation: what people called it. */
function nameOf(path: string): string {
  return (
    baseOf(path)
      .slice(33)
      .replace(/\.drv$/, "") || baseOf(path)
  );
}

function what({ derivation, socket }: SandboxSummary): string {
  return derivation !== null ? nameOf(derivation) : (socket ?? "");
}

const heading = [
  "ID",
  "BUILD OR SOCKET",
  "PROFILE",
  "DEPTH",
  "PARENT",
  "UID",
  "CONNS",
  "BUILDS",
  "VIEW",
  "ADDED",
  "SINCE",
];

/** The table of `nix-broker sandboxes`. */
export function sandboxTable(sandboxes: readonly SandboxSummary[]): string {
  return alignedColumns([
    heading,
    ...sandboxes.map((sandbox) =>
      [
        shortId(sandbox.id),
        what(sandbox),
        sandbox.profile,
        String(sandbox.depth),
        shortId(sandbox.parent),
        sandbox.uid === null ? "" : String(sandbox.uid),
        String(sandbox.connections),
        `${sandbox.builds.running}/${sandbox.builds.total}`,
        String(sandbox.viewPaths),
        sizeText(sandbox.bytesAdded),
        agoText(sandbox.since),
      ].map(escapeText),
    ),
  ]);
}

function pathLines(title: string, list: PathList): string[] {
  const more = list.total - list.paths.length;
  return [
    `${title} (${list.total})`,
    ...list.paths.map((path) => `  ${escapeText(path)}`),
    ...(more > 0 ? [`  and ${more} more`] : []),
  ];
}

/** The page of `nix-broker sandboxes ID`. */
export function detailsText(sandbox: SandboxDetails): string {
  const facts = [
    ["id", sandbox.id],
    sandbox.derivation === null ? ["socket", sandbox.socket ?? ""] : ["outer build", sandbox.derivation],
    ["profile", sandbox.profile],
    ["depth", String(sandbox.depth)],
    ["asked for by", sandbox.parent ?? "no other sandbox"],
    ["build user", sandbox.uid === null ? "not known yet" : String(sandbox.uid)],
    ["connections", String(sandbox.connections)],
    ["build requests", `${sandbox.builds.running} running, ${sandbox.builds.total} in total (family)`],
    ["added", `${sizeText(sandbox.bytesAdded)} (family)`],
    ["since", `${sandbox.since} (${agoText(sandbox.since)})`],
    ...(sandbox.refused === null ? [] : [["refused", sandbox.refused]]),
  ].map((row) => row.map(escapeText));
  const builds = sandbox.innerBuilds.map(({ ok, seconds, derivation, outputs }) =>
    [
      `  ${ok ? "built" : "FAILED"}`,
      durationText(seconds),
      nameOf(derivation),
      Object.values(outputs).map(baseOf).join(" "),
    ].map(escapeText),
  );
  return [
    alignedColumns(facts),
    "",
    ...(sandbox.viewStart === null
      ? ["view at the start: the whole store"]
      : pathLines("view at the start", sandbox.viewStart)),
    "",
    ...pathLines("gained since", sandbox.gained),
    "",
    `inner builds that ended (the latest ${sandbox.innerBuilds.length})`,
    ...(builds.length === 0 ? [] : [alignedColumns(builds)]),
  ].join("\n");
}

async function sandboxes(id: string | undefined, options: Options): Promise<void> {
  if (id === undefined) {
    const found = await askRunningService(options.config, "sandboxes", {});
    if (options.json) console.log(jsonText(found));
    else console.log(found.length === 0 ? "No sandbox is running." : sandboxTable(found));
  } else {
    const found = await askRunningService(options.config, "sandbox", { id });
    console.log(options.json ? jsonText(found) : detailsText(found));
  }
}

export function command(): Command {
  return new Command("sandboxes")
    .description(
      "List the running sandboxes; with an ID (or its beginning) show what its view started with, what it gained, and its inner builds.",
    )
    .argument("[ID]", "a sandbox's id, as listed")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Examples:
  nix-broker sandboxes
  nix-broker sandboxes 3k0c

Columns: DEPTH 1 is an outer build or a static socket; BUILDS are build requests running/in total, and ADDED is what was added to the store, both for the whole family of nested sandboxes; VIEW is how many paths it may know of.

JSON: a list, or one object; docs/control.md lists the fields. Exit code 3 if the service cannot be reached.`,
    )
    .action(sandboxes);
}
