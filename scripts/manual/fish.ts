/** The completion for fish. */
import type { CommandModel, OptionModel, Value } from "./model.ts";

function quoted(text: string): string {
  return `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
}

/** How `complete` says what an option takes. */
function taken(value: Value): string {
  switch (value.kind) {
    case "nothing":
      return "";
    case "words":
      return ` -x -a ${quoted(value.words.join(" "))}`;
    case "file":
      return " -r -F";
    default:
      return " -x";
  }
}

function optionLine(condition: string, { short, long, description, value }: OptionModel): string {
  const names = `${short === undefined ? "" : ` -s ${short.slice(1)}`} -l ${long.slice(2)}`;
  return `complete -c nix-broker -n ${quoted(condition)}${names}${taken(value)} -d ${quoted(description)}`;
}

function linesOf(command: CommandModel, condition: string): string[] {
  const subs = command.commands.map(({ name }) => name);
  const none = subs.length === 0 ? "" : `; and not __fish_seen_subcommand_from ${subs.join(" ")}`;
  const [argument] = command.arguments;
  const lines = [
    ...command.options.map((option) => optionLine(condition, option)),
    ...command.commands.map(
      ({ name, summary }) =>
        `complete -c nix-broker -n ${quoted(`${condition}${none}`)} -a ${name} -d ${quoted(summary)}`,
    ),
  ];
  if (argument?.value.kind === "words")
    lines.push(`complete -c nix-broker -n ${quoted(condition)} -a ${quoted(argument.value.words.join(" "))}`);
  if (argument?.value.kind === "file") lines.push(`complete -c nix-broker -n ${quoted(condition)} -F`);
  if (argument?.value.kind === "command")
    lines.push(
      `complete -c nix-broker -n ${quoted(condition)} -a '(__fish_complete_subcommand --fcs-skip=2)'`,
    );
  return [
    ...lines,
    ...command.commands.flatMap((sub) =>
      linesOf(sub, `${condition}; and __fish_seen_subcommand_from ${sub.name}`),
    ),
  ];
}

export function fishCompletion(commands: readonly CommandModel[]): string {
  const names = commands.map(({ name }) => name);
  const lines = [
    "# fish completion for nix-broker",
    "complete -c nix-broker -f",
    ...commands.map(
      ({ name, summary }) =>
        `complete -c nix-broker -n __fish_use_subcommand -a ${name} -d ${quoted(summary)}`,
    ),
    "complete -c nix-broker -n __fish_use_subcommand -a help -d 'print what a command does'",
    "complete -c nix-broker -n __fish_use_subcommand -s h -l help -d 'print the overview'",
    "complete -c nix-broker -n __fish_use_subcommand -s V -l version -d 'print the version'",
    `complete -c nix-broker -n '__fish_seen_subcommand_from help' -a ${quoted(names.join(" "))}`,
    ...commands.flatMap((command) => linesOf(command, `__fish_seen_subcommand_from ${command.name}`)),
  ];
  return `${lines.join("\n")}\n`;
}
