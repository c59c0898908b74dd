/**
 * Continuations: an output names derivations that are to be built next. The format
 * (`nix-support/continuation` in an output, docs/lib.md): one derivation per line, as its store path,
 * optionally followed by `!` and the names of outputs, separated by commas (all outputs if there are none);
 * empty lines and lines that start with `#` are ignored.
 */
import { readFileSync, statSync } from "node:fs";
import { isDerivationPath, isStorePath, type StorePath } from "../store/store-path.ts";

/** The file of an output that says what is to be built next. */
export const continuationFile = "nix-support/continuation";

/**
 * Longer files are not read: a derivation takes about 100 bytes, so this is enough for more than a hundred
 * thousand.
 */
const maxBytes = 16 * 1024 * 1024;

/** A continuation cannot be followed. */
export class ContinuationError extends Error {
  override readonly name = "ContinuationError";
}

/** A derivation that is to be built, as Nix's commands take it: `DRV`, or `DRV!OUTPUTS`. */
export type Installable = string;

/**
 * @param file named in errors
 * @throws ContinuationError naming the first line that is wrong.
 */
export function parseContinuation(text: string, file: string, storeDir: string): Installable[] {
  const installables: Installable[] = [];
  text.split("\n").forEach((line, index) => {
    if (line === "" || line.startsWith("#")) return;
    const [path = "", outputs, ...more] = line.split("!");
    const named = outputs === undefined || /^[A-Za-z0-9+._?=-]+(,[A-Za-z0-9+._?=-]+)*$/.test(outputs);
    if (!isStorePath(path, storeDir) || !isDerivationPath(path) || !named || more.length > 0)
      throw new ContinuationError(
        `${file}, line ${index + 1}: expected a derivation, ${storeDir}/….drv or ${storeDir}/….drv!OUTPUT,OUTPUT, but there is "${line.slice(0, 200)}"`,
      );
    if (!installables.includes(line)) installables.push(line);
  });
  return installables;
}

/** What an output says is to be built next; undefined if it is a result. @throws ContinuationError */
export function readContinuation(output: StorePath): Installable[] | undefined {
  const file = `${output}/${continuationFile}`;
  let text: string;
  try {
    const status = statSync(file);
    // An output may have a link there, such as one to /dev/zero.
    if (!status.isFile()) throw new ContinuationError(`${file} is not a regular file`);
    if (status.size > maxBytes)
      throw new ContinuationError(
        `${file} has ${status.size} bytes, more than the ${maxBytes} that are read`,
      );
    text = readFileSync(file, "utf8");
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    // ENOTDIR: an output that is a file.
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw error;
  }
  return parseContinuation(text, file, output.slice(0, output.lastIndexOf("/")));
}

/** Builds derivations, all at once, and returns the outputs of each, in the same order. */
export type Realise = (installables: readonly Installable[]) => Promise<readonly (readonly StorePath[])[]>;

export interface FollowOptions {
  /** How many times in a row an output may name derivations. */
  readonly maxRounds: number;
  readonly read?: (output: StorePath) => Installable[] | undefined;
  /** Told what is built next. */
  readonly onRound?: (round: number, installables: readonly Installable[]) => void;
}

/**
 * Builds what outputs name until none names anything new. Each output is replaced by the results of its
 * continuation, in their order.
 *
 * @returns the results, each once
 * @throws ContinuationError for a cycle, and after too many rounds.
 */
export async function followContinuations(
  first: readonly StorePath[],
  realise: Realise,
  { maxRounds, read = readContinuation, onRound }: FollowOptions,
): Promise<StorePath[]> {
  /** What each output led to; undefined for a result. */
  const followed = new Map<StorePath, readonly StorePath[] | undefined>();
  let frontier = [...new Set(first)];
  for (let round = 1; ; round++) {
    const named = new Map<StorePath, readonly Installable[]>();
    for (const path of frontier) {
      const installables = read(path);
      if (installables === undefined) followed.set(path, undefined);
      else named.set(path, installables);
    }
    if (named.size === 0) return results(first, followed);
    if (round > maxRounds)
      throw new ContinuationError(
        `after ${maxRounds} rounds ${[...named.keys()][0]} still names derivations to build; --max-rounds allows more`,
      );
    const wanted = [...new Set([...named.values()].flat())];
    onRound?.(round, wanted);
    const built = wanted.length === 0 ? [] : await realise(wanted);
    const outputsOf = new Map(wanted.map((installable, index) => [installable, built[index] ?? []]));
    for (const [path, installables] of named)
      followed.set(
        path,
        installables.flatMap((installable) => outputsOf.get(installable) ?? []),
      );
    frontier = [...new Set(built.flat())].filter((path) => !followed.has(path));
  }
}

/** @throws ContinuationError when an output leads back to itself. */
function results(
  first: readonly StorePath[],
  followed: ReadonlyMap<StorePath, readonly StorePath[] | undefined>,
): StorePath[] {
  const found = new Set<StorePath>();
  const done = new Set<StorePath>();
  const visit = (path: StorePath, chain: readonly StorePath[]): void => {
    if (chain.includes(path))
      throw new ContinuationError(
        `a cycle of continuations: ${[...chain.slice(chain.indexOf(path)), path].join(" -> ")}`,
      );
    if (done.has(path)) return;
    const next = followed.get(path);
    if (next === undefined) found.add(path);
    else for (const output of next) visit(output, [...chain, path]);
    done.add(path);
  };
  for (const path of first) visit(path, []);
  return [...found];
}
