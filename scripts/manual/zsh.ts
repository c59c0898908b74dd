/** The completion for zsh. */
import type { CommandModel, OptionModel, Value } from "./model.ts";

/** Inside of single quotes, in a description of _arguments. */
function described(text: string): string {
  return text.replace(/[[\]:\\]/g, "\\$&").replaceAll("'", "'\\''");
}

function action(value: Value): string {
  switch (value.kind) {
    case "words":
      return `(${value.words.join(" ")})`;
    case "file":
      return "_files";
    case "command":
      return "_command_names -e";
    default:
      return " ";
  }
}

function optionSpecs({ short, long, description, value }: OptionModel): string {
  const names = short === undefined ? long : `{${short},${long}}`;
  const exclusive = short === undefined ? "" : `'(${short} ${long})'`;
  const taken = value.kind === "nothing" ? "" : `:value:${action(value)}`;
  return `${exclusive}${names}'[${described(description)}]${taken}'`;
}

function argumentsOf(command: CommandModel, indent: string): string {
  const specs = [
    ...command.options.map(optionSpecs),
    ...command.arguments.map(({ name, value }) =>
      value.kind === "command" ? "'*::command: _normal'" : `'*:${described(name)}:${action(value)}'`,
    ),
  ];
  if (command.commands.length > 0)
    specs.push(
      `'1:command:(${command.commands.map(({ name }) => name).join(" ")})'`,
      "'*::argument:->argument'",
    );
  const line = `${indent}_arguments -s${command.commands.length > 0 ? " -C" : ""} \\\n${specs.map((spec) => `${indent}  ${spec}`).join(" \\\n")}`;
  if (command.commands.length === 0) return line;
  const subs = command.commands.map(
    (sub) => `${indent}  ${sub.name})\n${argumentsOf(sub, `${indent}    `)} ;;`,
  );
  return `${line}\n${indent}[[ $state == argument ]] && case $words[1] in\n${subs.join("\n")}\n${indent}esac`;
}

export function zshCompletion(commands: readonly CommandModel[]): string {
  const list = commands.map(({ name, summary }) => `    '${name}:${described(summary)}'`);
  const cases = commands.map(
    (command) => `        ${command.name})\n${argumentsOf(command, "          ")} ;;`,
  );
  return `#compdef nix-broker
_nix_broker() {
  local curcontext=$curcontext state line
  local -a commands
  commands=(
${list.join("\n")}
    'help:print what a command does'
  )
  _arguments -C \\
    '(- *)'{-h,--help}'[print the overview]' \\
    '(- *)'{-V,--version}'[print the version]' \\
    '1:command:->command' \\
    '*::argument:->argument'
  case $state in
    command) _describe -t commands 'nix-broker command' commands ;;
    argument)
      case $words[1] in
        help) _describe -t commands 'nix-broker command' commands ;;
${cases.join("\n")}
      esac ;;
  esac
}
_nix_broker "$@"
`;
}
