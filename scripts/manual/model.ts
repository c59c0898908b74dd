/** The commands as pages and completions need them, from commander's own definitions. */
import type { Command, Option } from "commander";
import { AUDIT_EVENTS } from "../../src/cli/audit-options.ts";
import { entries } from "../../src/cli/entries.ts";
import { builtinProfileNames } from "../../src/policy/profiles.ts";
import { operationNames } from "../../src/protocol/operations.ts";

/** What an option or an argument takes. */
export type Value =
  | { readonly kind: "nothing" }
  | { readonly kind: "text" }
  | { readonly kind: "file" }
  | { readonly kind: "command" }
  | { readonly kind: "words"; readonly words: readonly string[] };

export interface OptionModel {
  readonly short: string | undefined;
  readonly long: string;
  /** As in the help: `-c, --config <FILE>`. */
  readonly term: string;
  readonly description: string;
  readonly value: Value;
}

export interface CommandModel {
  readonly name: string;
  readonly summary: string;
  readonly description: string;
  /** `[OPTIONS] [FILE]` */
  readonly usage: string;
  readonly options: readonly OptionModel[];
  readonly arguments: readonly {
    readonly name: string;
    readonly description: string;
    readonly value: Value;
  }[];
  readonly commands: readonly CommandModel[];
  /** The text below the options in its help. */
  readonly more: string;
}

/** Every command, in the order of the overview. */
export async function commandModels(): Promise<CommandModel[]> {
  return Promise.all(
    Object.values(entries).map(async ({ load, summary }) =>
      modelOf((await load()).command().summary(summary)),
    ),
  );
}

function modelOf(command: Command): CommandModel {
  const help = command.createHelp();
  return {
    name: command.name(),
    summary: command.summary() || command.description(),
    description: command.description(),
    usage: command.usage(),
    options: help.visibleOptions(command).map((option) => ({
      short: option.short,
      long: option.long ?? "",
      term: help.optionTerm(option),
      description: help.optionDescription(option),
      value: optionValue(option),
    })),
    arguments: command.registeredArguments.map((argument) => ({
      name: argument.name(),
      description: argument.description,
      value: takes(argument.name(), argument.argChoices),
    })),
    commands: command.commands.map(modelOf),
    more: textBelow(command),
  };
}

function optionValue(option: Option): Value {
  const placeholder = /[<[]([^\]>]+)[\]>]/.exec(option.flags)?.[1];
  if (placeholder === undefined) return { kind: "nothing" };
  if (option.long === "--profile") return { kind: "words", words: builtinProfileNames };
  return takes(placeholder, option.argChoices);
}

function takes(placeholder: string, choices: readonly string[] | undefined): Value {
  if (choices !== undefined) return { kind: "words", words: choices };
  if (/^(?:FILE|PATH|FOLDER|DIR|OUT|ARGUMENTS)$/.test(placeholder)) return { kind: "file" };
  if (placeholder === "OPERATION") return { kind: "words", words: [...operationNames, ...AUDIT_EVENTS] };
  return placeholder === "command" ? { kind: "command" } : { kind: "text" };
}

/** What `addHelpText("after")` added. */
function textBelow(command: Command): string {
  let text = "";
  command.configureOutput({ writeOut: (part) => (text += part) });
  command.outputHelp();
  return text.slice(command.helpInformation().length).trim();
}
