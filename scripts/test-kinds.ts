/**
 * Which tests need what. A `daemon` test starts programs: real daemons, the bundle, others of this machine; those of the page's
 * server take as long. A `unit` test starts none, so it needs no Nix, no root and no network. The imports tell which one a file
 * is, so that nobody has to.
 */
import { globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";

const root = join(import.meta.dirname, "..");
const imported = /(?:from|import)\s*\(?\s*"([^"]+)"/g;
const startsPrograms = new Set(["node:child_process", "lab/lab.ts", "lab/program.ts"]);
/** Asks git which files there are, and nothing more. */
const exceptions = new Set(["test/architecture.test.ts"]);

export interface TestFiles {
  readonly unit: readonly string[];
  readonly daemon: readonly string[];
}

export function testFiles(): TestFiles {
  const known = new Map<string, boolean>();
  const needsDaemon = (file: string): boolean => {
    const before = known.get(file);
    if (before !== undefined) return before;
    // A file that imports itself in a circle adds nothing to what the others of the circle import.
    known.set(file, false);
    const answer = importsOf(file).some(
      (name) => startsPrograms.has(name) || (/^(test|lab)\//.test(name) && needsDaemon(name)),
    );
    known.set(file, answer);
    return answer;
  };
  const files = globSync("test/**/*.test.ts", { cwd: root }).sort();
  const isUnit = (file: string): boolean =>
    exceptions.has(file) || !(file.startsWith("test/web/") || needsDaemon(file));
  return { unit: files.filter(isUnit), daemon: files.filter((file) => !isUnit(file)) };
}

/** What a file imports: packages by name, files by their path in the project. */
function importsOf(file: string): string[] {
  return [...readFileSync(join(root, file), "utf8").matchAll(imported)].map(([, name = ""]) =>
    name.startsWith(".") ? join(dirname(file), name) : name,
  );
}
