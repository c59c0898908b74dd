import { Command } from "commander";
import { limitText } from "../config/limit-text.ts";
import { loadConfig } from "../config/load.ts";
import { suggestion } from "../config/nearest.ts";
import { profileNamed } from "../config/overrides.ts";
import { type Limits, limitNames, limitTable } from "../policy/limits.ts";
import type { Profile } from "../policy/profile.ts";
import { refuseOperation, rules, type Verdict, verdictOf } from "../policy/rules.ts";
import { type OperationName, operationNames, operations } from "../protocol/operations.ts";
import { configOption, jsonOption } from "./options.ts";
import { UsageError } from "./outcome.ts";
import { alignedColumns } from "./table.ts";

interface Options {
  readonly config?: string;
  readonly profile: string;
  readonly json?: true;
}

interface Row {
  readonly operation: OperationName;
  readonly number: number;
  readonly group: string | null;
  readonly verdict: Verdict;
  /** What happens, or why not. */
  readonly what: string;
}

async function loadProfile({ config, profile }: Options): Promise<Profile> {
  return profileNamed(await loadConfig({ path: config }), profile);
}

function tableOf(profile: Profile): Row[] {
  return operationNames.map((operation) => ({
    operation,
    number: operations[operation].number,
    group: rules[operation].group ?? null,
    verdict: verdictOf(operation, profile),
    what: refuseOperation(operation, profile) ?? rules[operation].summary,
  }));
}

function limitLines(limits: Limits): string[][] {
  return limitNames.map((name) => [`  ${limitTable[name].key}`, limitText(limitTable[name], limits[name])]);
}

function listed(value: string | readonly string[]): string {
  return typeof value === "string" ? value : value.join(", ") || "none";
}

function profileLines(profile: Profile): string[][] {
  return [
    ["  fixed_outputs", listed(profile.fixedOutputs)],
    ["  admit_fixed_outputs", profile.admitFixedOutputs ? "yes" : "no"],
    ["  systems", listed(profile.systems)],
    ["  required_system_features", listed(profile.requiredSystemFeatures)],
    ["  impure_env_vars", listed(profile.impureEnvVars)],
    ["  weak_hashes", profile.weakHashes ? "yes" : "no"],
    ["  substitute", profile.substitute ? "yes" : "no"],
    ["  inner_logs", profile.innerLogs],
    ["  content_addressed", profile.contentAddressed ? "yes" : "no"],
    ["  view", listed(profile.view)],
  ];
}

/** JSON has no infinity: an unlimited bound is null. */
function profileJson({ name, ...profile }: Profile) {
  return { profile: name, ...profile };
}

async function printPolicy(options: Options): Promise<void> {
  const profile = await loadProfile(options);
  const rows = tableOf(profile);
  if (options.json) {
    console.log(JSON.stringify({ ...profileJson(profile), operations: rows }));
    return;
  }
  const header = ["OPERATION", "GROUP", "VERDICT", "WHAT HAPPENS, OR WHY NOT"];
  const lines = rows.map((row) => [row.operation, row.group ?? "", row.verdict, row.what]);
  console.log(`${profile.name}: ${profile.summary}\n`);
  console.log(alignedColumns([header, ...lines]));
  console.log(`\nsettings\n${alignedColumns(profileLines(profile))}`);
  console.log(`\nlimits\n${alignedColumns(limitLines(profile.limits))}`);
}

const verdictWords: Readonly<Record<Verdict, string>> = {
  forward: "forwarded: upstream gets a request rewritten by the broker, and the client a filtered reply",
  answer: "answered by the broker; upstream never sees it",
  deny: "denied",
};

async function explain(operation: string, options: Options): Promise<void> {
  const profile = await loadProfile(options);
  const rows = tableOf(profile);
  const row = rows.find((candidate) => candidate.operation.toLowerCase() === operation.toLowerCase());
  if (row === undefined) {
    throw new UsageError(
      `there is no operation "${operation}"${suggestion(
        operation,
        rows.map((candidate) => candidate.operation),
      )}`,
    );
  }
  const { about } = operations[row.operation];
  if (options.json) {
    console.log(JSON.stringify({ ...row, profile: profile.name, about }));
    return;
  }
  console.log(`${row.operation} (${row.number}): ${about}.`);
  console.log(`With the profile "${profile.name}" it is ${verdictWords[row.verdict]}.`);
  console.log(row.verdict === "deny" ? `Why: ${row.what}.` : `What happens: ${row.what}.`);
  if (row.group === null) return;
  console.log(
    row.verdict === "deny"
      ? `A profile with "${row.group}" among its operations permits it.`
      : `It belongs to the group "${row.group}", which this profile permits.`,
  );
}

export function command(): Command {
  return new Command("policy")
    .description(
      "Print what happens to every operation under a profile, and the profile's settings and limits.",
    )
    .addOption(configOption())
    .option("-p, --profile <NAME>", "the profile", "build")
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Examples:
  nix-broker policy --profile agent
  nix-broker policy explain AddToStore --profile query

JSON: the profile's settings in camel case ("fixedOutputs"), "operations": [{"operation", "number", "group",
"verdict", "what"}], and "limits", where null means unlimited. "explain" prints one of the operations.`,
    )
    .action((options: Options) => printPolicy(options))
    .addCommand(
      new Command("explain")
        .description("Explain what happens to one operation, and why.")
        .argument("<OPERATION>", "a name of the worker protocol, e.g. QueryPathInfo")
        .configureHelp({ showGlobalOptions: true })
        .action((operation: string, _own: unknown, self: Command) =>
          explain(operation, self.optsWithGlobals() as Options),
        ),
    );
}
