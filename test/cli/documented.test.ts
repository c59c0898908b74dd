/** Every command line of the documentation names a command and options that are there. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Command } from "commander";
import { expect, test } from "vitest";

const root = join(import.meta.dirname, "../..");
const pages = [
  "README.md",
  "CHANGELOG.md",
  ...readdirSync(join(root, "docs"))
    .filter((name) => name.endsWith(".md"))
    .map((name) => `docs/${name}`),
];

/** What root's wrapper takes, which is not the command line of people. */
const rootCommands: Readonly<Record<string, readonly string[]>> = {
  linker: ["--remount-store"],
  "pre-build-hook": [],
  "post-build-hook": [],
};

/** In code spans and blocks; what follows a pipe, a redirection, a comment or an assignment is not ours. */
function commandLines(page: string): string[] {
  const text = readFileSync(join(root, page), "utf8");
  const spans = [...text.matchAll(/`(?:sudo )?(nix-broker [^`\n]+)`/g)];
  const lines = [...text.matchAll(/^(?: {4})?(?:\$ |sudo )?(?:command=")?(nix-broker .+)$/gm)];
  return [...spans, ...lines].flatMap(([, line = ""]) => line.split(/\s+(?:[|>#&;]|#)|["…]| {2,}/, 1));
}

/** Messages of ours, which pages quote, begin like commands. */
function isMessage(line: string): boolean {
  return /^nix-broker (?:does|cannot) /.test(line);
}

const documented = pages.flatMap((page) =>
  commandLines(page)
    .map((line) => [page, line.trim()] as const)
    .filter(([, line]) => !isMessage(line)),
);

async function load(name: string): Promise<Command | undefined> {
  const files = readdirSync(join(root, "src/cli"));
  if (!files.includes(`${name}.ts`)) return undefined;
  const module = (await import(`../../src/cli/${name}.ts`)) as { command?: () => Command };
  return module.command?.();
}

test("there are many", () => {
  expect(documented.length).toBeGreaterThan(40);
});

test.each(documented)("%s: %s", async (_page, line) => {
  const [, name = "", ...words] = line.split(/\s+/);
  if (name.startsWith("-")) {
    expect(["--version", "--help"]).toContain(name);
    return;
  }
  const options = words
    .map((word) => /^\[?(-{1,2}[a-z][a-z-]*)/.exec(word)?.[1])
    .filter((word) => word !== undefined);
  const ofRoot = rootCommands[name];
  if (ofRoot !== undefined) {
    for (const option of options) expect(ofRoot).toContain(option);
    return;
  }
  const command = await load(name);
  expect(command, `there is no command ${name}`).toBeDefined();
  // What is after the name of "build" is nix-build's.
  if (name === "build") return;
  const inner = command?.commands.find((candidate) => candidate.name() === words[0]);
  const known = [command, inner]
    .flatMap((one) => one?.options ?? [])
    .flatMap(({ short, long }) => [short, long]);
  for (const option of options) expect(known, `${name} has no ${option}`).toContain(option);
});
