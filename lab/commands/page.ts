/** `docs/commands.md`, written from the table of everyday commands. */
import { type EverydayCommand, everydayCommands, type Situation } from "./table.ts";

const introduction = `# Everyday commands behind the broker

Each row is a command that \`test/broker/commands.test.ts\` runs through a static socket with real
clients and daemons of Nix 2.3, 2.8, 2.26 and 2.34, in both situations:

- **build**: profile \`build\`, view \`empty\`, as in the sandbox of a build;
- **agent**: profile \`agent\`, view \`store\`, as in a jail that sees the whole store.

\`$drv\`, \`$out\`, \`$dep\` and \`$src\` are a derivation, its output, a path that the output refers
to, and a source, all in the view; \`$missing\` is a path outside it. Words in quotation marks are what
the client prints.

Without the linker, at a static socket in a build, nothing makes new paths visible in \`/nix/store\`. There, clients of
2.3 and 2.8 work, except for commands that read a derivation or a result
(\`nix-store --query --outputs\`). Clients of 2.26 and later, and of 2.8 with a daemon of 2.3, can also
add and build, but then open the derivation and fail with
“opening file '….drv': No such file or directory” or “store path '….drv' does not exist”
(\`test/broker/inside.test.ts\`). In per-build sandboxes, with the linker, they work.

This page is generated: \`npm run docs\` writes it.
`;

function versions({ since, until }: EverydayCommand): string {
  if (since === undefined && until === undefined) return "all";
  if (since === until) return `${since}`;
  return since === undefined ? `up to ${until}` : `from ${since}`;
}

function outcome({ refused }: EverydayCommand, situation: Situation): string {
  if (typeof refused !== "object") return refused === undefined ? "works" : `refused: “${refused}”`;
  const here = refused[situation];
  if (here !== undefined) return `refused: “${here}”`;
  const byWords = new Map<string, string[]>();
  for (const [key, words] of Object.entries(refused))
    if (/^\d/.test(key)) byWords.set(words, [...(byWords.get(words) ?? []), key].sort(byNumber));
  const texts = [...byWords].map(([words, keys]) => `“${words}” (${keys.join(", ")})`);
  return texts.length === 0 ? "works" : `refused: ${texts.join(", ")}`;
}

function byNumber(a: string, b: string): number {
  return Number(a.slice(2)) - Number(b.slice(2));
}

function cell(text: string): string {
  return text.replaceAll("|", "\\|");
}

/** The whole page. */
export function commandsReference(): string {
  const sections = Object.entries(everydayCommands).map(([title, commands]) => {
    const rows = commands.map((command) => {
      const [build, agent] = [outcome(command, "build"), outcome(command, "agent")];
      const both = build === agent ? build : `build: ${build}; agent: ${agent}`;
      return `| \`${cell(command.command)}\` | ${versions(command)} | ${cell(both)} | ${command.remark ?? ""} |`;
    });
    return [
      `## ${title}`,
      "",
      "| command | clients | behind the broker | remarks |",
      "|---|---|---|---|",
      ...rows,
    ].join("\n");
  });
  return `${introduction}\n${sections.join("\n\n")}\n`;
}
