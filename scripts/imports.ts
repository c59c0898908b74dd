/**
 * Which folder of src/ imports which: for the test that checks the layers, and for docs/architecture.md.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));

/** What one source file imports. Paths are from the root of the repository, with `/`. */
export interface SourceFile {
  readonly path: string;
  /** The folder of src/ it is in. */
  readonly folder: string;
  /** Other source files, types included. */
  readonly files: readonly string[];
  /** Built-ins (`node:fs`) and packages (`zod`, `@scope/name`) as written. */
  readonly packages: readonly string[];
}

// Static imports and exports, dynamic imports of a constant, and the types of either.
const importPattern =
  /(?:^|[;}\n])\s*(?:import|export)\b[^"'`;]*?\bfrom\s*["']([^"']+)["']|(?:^|[;}\n])\s*import\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']/g;

function importsOf(text: string): string[] {
  return [...text.matchAll(importPattern)].map((match) => match[1] ?? match[2] ?? match[3]!);
}

function readSource(path: string): SourceFile {
  const specifiers = importsOf(readFileSync(join(root, path), "utf8"));
  const isFile = (specifier: string): boolean => specifier.startsWith(".");
  return {
    path,
    folder: path.split("/")[1]!,
    files: specifiers
      .filter(isFile)
      .map((specifier) => relative(root, resolve(root, dirname(path), specifier))),
    packages: specifiers.filter((specifier) => !isFile(specifier)),
  };
}

/** Every TypeScript file in a folder of src/. */
export function sourceFiles(): readonly SourceFile[] {
  return readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" })
    .filter((path) => /\.tsx?$/.test(path) && path.includes("/"))
    .sort()
    .map((path) => readSource(`src/${path}`));
}

/** For each folder of src/, by name, the other folders that its files import. */
export function folderGraph(files: readonly SourceFile[] = sourceFiles()): Map<string, string[]> {
  const graph = new Map<string, Set<string>>();
  for (const file of files) {
    const imported = graph.get(file.folder) ?? new Set();
    graph.set(file.folder, imported);
    for (const other of file.files) {
      // Data from outside src/ (package.json) has no layer; code does.
      if (other.endsWith(".json")) continue;
      const folder = other.startsWith("src/") ? other.split("/")[1]! : other;
      if (folder !== file.folder) imported.add(folder);
    }
  }
  return new Map([...graph].sort().map(([folder, imported]) => [folder, [...imported].sort()]));
}

const begin = "<!-- imports: made by `npm run docs` -->";
const end = "<!-- end of imports -->";

/** The text of a page with the import table between its two marks brought up to date. */
export function withImportTable(page: string): string {
  const from = page.indexOf(begin);
  const to = page.indexOf(end);
  if (from === -1 || to < from) throw new Error(`the page lacks the marks ${begin} and ${end}`);
  const rows = [...folderGraph()].map(
    ([folder, imported]) =>
      `| \`src/${folder}/\` | ${imported.map((other) => `\`${other}\``).join(", ") || "none"} |`,
  );
  const table = ["| folder | imports |", "|---|---|", ...rows].join("\n");
  return `${page.slice(0, from)}${begin}\n\n${table}\n\n${page.slice(to)}`;
}
