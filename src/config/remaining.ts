/** What the keys of a file say that fit the schema, where others do not: one run then reports the problems of both. */
import type { Places } from "./places.ts";
import { resolveConfig } from "./resolve.ts";
import { configSchema } from "./schema.ts";

type Path = readonly (string | number)[];

interface PlacedProblem {
  readonly path: Path;
  readonly message: string;
}

/**
 * @param parsed the file's contents
 * @param wrong where they do not fit the schema
 * @returns problems among the keys that do; none if a key is missing without which there is nothing to check
 */
export function remainingProblems(
  parsed: unknown,
  wrong: readonly PlacedProblem[],
  places: Places,
): PlacedProblem[] {
  const keys = wrong.map(({ path }) => withoutIndexes(path));
  // Whoever names a profile that is left out would be told that there is none.
  if (keys.some((path) => path.length === 0 || (path[0] === "profiles" && path.length < 3))) return [];
  const rest: unknown = structuredClone(parsed);
  for (const path of keys) remove(rest, path);
  const result = configSchema.safeParse(rest);
  if (!result.success) return [];
  const tables = new Set(keys.map(tableOf));
  const found: PlacedProblem[] = [];
  resolveConfig(undefined, result.data, places, (path, message) => found.push({ path, message }));
  // A key may contradict one that was left out.
  return found.filter(({ path }) => !tables.has(tableOf(path)));
}

function tableOf(path: Path): string {
  return JSON.stringify(path.slice(0, -1));
}

/** The list that an element is in: without the element, those after it would be taken for others. */
function withoutIndexes(path: Path): Path {
  const end = path.findLastIndex((part) => typeof part === "string");
  return path.slice(0, end + 1);
}

function remove(from: unknown, path: Path): void {
  const [key, ...further] = path;
  if (typeof from !== "object" || from === null || key === undefined) return;
  if (further.length === 0) Reflect.deleteProperty(from, key);
  else remove(Reflect.get(from, key), further);
}
