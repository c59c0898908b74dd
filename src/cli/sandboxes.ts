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

function what({ derivation, jail, socket }: SandboxSummary): string {
  return derivation !== null ? nameOf(derivation) : (jail ?? socket ?? "");
}

/** What is used of a quota, and how much there is. */
function ofLimit(used: string, limit: string | undefined): string {
  return limit === undefined ? used : `${used} of ${limit}`;
}

const heading = [
  "ID",
  "BUILD, JAIL OR SOCKET",
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

/** What a service of an earlier version, which an upgrade has not restarted yet, does not say. */
function completed(details: SandboxDetails): SandboxDetails {
  const { jail = null, endsAt = null } = details;
  const limits = details.limits ?? { concurrentBuilds: null, builds: null, bytesAdded: null };
  return { ...details, jail, endsAt, limits };
}

/** The page of `nix-broker sandboxes ID`. */
export function detailsText(given: SandboxDetails): string {
  const sandbox = completed(given);
  const { builds, bytesAdded, limits } = sandbox;
  const facts = [
    ["id", sandbox.id],
    ...(sandbox.jail === null ? [] : [["jail", sandbox.jail]]),
    sandbox.derivation === null ? ["socket", sandbox.socket ?? ""] : ["outer build", sandbox.derivation],
    ["profile", sandbox.profile],
    ["depth", String(sandbox.depth)],
    ["asked for by", sandbox.parent ?? "no other sandbox"],
    ["build user", sandbox.uid === null ? "not known yet" : String(sandbox.uid)],
    ["connections", String(sandbox.connections)],
    [
      "build requests",
      `${ofLimit(`${builds.running}`, limits.concurrentBuilds?.toString())} running, ${ofLimit(`${builds.total}`, limits.builds?.toString())} in total (family)`,
    ],
    [
      "added",
      `${ofLimit(sizeText(bytesAdded), limits.bytesAdded === null ? undefined : sizeText(limits.bytesAdded))} (family)`,
    ],
    ["since", `${sandbox.since} (${agoText(sandbox.since)})`],
    ...(sandbox.endsAt === null ? [] : [["ends", sandbox.endsAt]]),
    ...(sandbox.refused === null ? [] : [["refused", sandbox.refused]]),
  ].map((row) => row.map(escapeText));
  const innerBuilds = sandbox.innerBuilds.map(({ ok, seconds, derivation, outputs }) =>
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
    ...(innerBuilds.length === 0 ? [] : [alignedColumns(innerBuilds)]),
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

async function end(name: string, _own: unknown, command: Command): Promise<void> {
  await askRunningService(command.optsWithGlobals<Options>().config, "endJail", { name });
  console.log(`The jail ${name} has ended. Its socket serves a new one.`);
}

function endCommand(): Command {
  return new Command("end")
    .description(
      "End a named jail ([jails.NAME]): close its connections and release its roots. Its socket stays, and its next client begins with a new, empty jail.",
    )
    .argument("<NAME>", "its name")
    .addOption(configOption())
    .action(end);
}

export function command(): Command {
  return new Command("sandboxes")
    .description(
      "List the running sandboxes; with an ID (or its beginning) show what its view started with, what it gained, and its inner builds.",
    )
    .argument("[ID]", "a sandbox's id, as listed, or the name of a jail")
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Examples:
  nix-broker sandboxes
  nix-broker sandboxes 3k0c
  nix-broker sandboxes ci
  nix-broker sandboxes end ci

Columns: DEPTH 1 is an outer build or a static socket; BUILDS are build requests running/in total, and ADDED is what was added to the store, both for the whole family of nested sandboxes; VIEW is how many paths it may know of.

JSON: a list, or one object; docs/control.md lists the fields. Exit code 3 if the service cannot be reached.`,
    )
    .action(sandboxes)
    .addCommand(endCommand());
}
