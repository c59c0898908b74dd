/** The completion for bash: it needs nothing but bash itself. */
import type { CommandModel, Value } from "./model.ts";

/** What completes a value, as a line of the script. */
function filling(value: Value): string {
  switch (value.kind) {
    case "words":
      return `mapfile -t COMPREPLY < <(compgen -W '${value.words.join(" ")}' -- "$cur")`;
    case "file":
      return 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur")';
    case "command":
      return 'mapfile -t COMPREPLY < <(compgen -c -- "$cur")';
    default:
      return ":";
  }
}

interface Reached {
  /** `audit verify`; "" before a command. */
  readonly path: string;
  readonly command: CommandModel;
}

function reached(command: CommandModel, above = ""): Reached[] {
  const path = `${above} ${command.name}`.trim();
  return [{ path, command }, ...command.commands.flatMap((sub) => reached(sub, path))];
}

function namesOf({ short, long }: CommandModel["options"][number]): string[] {
  return [short, long].filter((name) => name !== undefined);
}

function caseOf({ path, command }: Reached): string {
  const valued = command.options
    .filter(({ value }) => value.kind !== "nothing")
    .map((option) => `        ${namesOf(option).join("|")}) ${filling(option.value)}; return ;;`);
  const words = [...command.options.flatMap(namesOf), ...command.commands.map(({ name }) => name)];
  const [argument] = command.arguments;
  const rest = argument === undefined ? ":" : filling(argument.value);
  return `    "${path}")
      case $prev in
${[...valued, "        *) ;;"].join("\n")}
      esac
      case $cur in
        -*) mapfile -t COMPREPLY < <(compgen -W '${words.join(" ")}' -- "$cur") ;;
        *) ${command.commands.length > 0 ? `mapfile -t COMPREPLY < <(compgen -W '${command.commands.map(({ name }) => name).join(" ")}' -- "$cur")` : rest} ;;
      esac ;;`;
}

export function bashCompletion(commands: readonly CommandModel[]): string {
  const all = commands.flatMap((command) => reached(command));
  const names = commands.map(({ name }) => name);
  const jumps = all.map(({ path }) => {
    const at = path.lastIndexOf(" ");
    return `      "${at < 0 ? "" : path.slice(0, at)} ${path.slice(at + 1)}") command="${path}" ;;`;
  });
  return `# bash completion for nix-broker
_nix_broker() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD - 1]} command= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    # What follows is another program's command line.
    if [[ \${COMP_WORDS[i]} == -- ]]; then
      if ((i == COMP_CWORD - 1)); then
        mapfile -t COMPREPLY < <(compgen -c -- "$cur")
      else
        compopt -o filenames
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
      fi
      return
    fi
    case "$command \${COMP_WORDS[i]}" in
${jumps.join("\n")}
    esac
  done
  case $command in
    "")
      case $prev in
        help) mapfile -t COMPREPLY < <(compgen -W '${names.join(" ")}' -- "$cur") ;;
        *) mapfile -t COMPREPLY < <(compgen -W '${[...names, "help", "--help", "--version"].join(" ")}' -- "$cur") ;;
      esac ;;
${all.map(caseOf).join("\n")}
  esac
}
complete -F _nix_broker nix-broker
`;
}
