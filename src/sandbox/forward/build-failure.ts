/**
 * Why a build failed, out of upstream's words for it. Those never reach a client themselves, for they name hosts, users
 * and other people's paths; what is read out of them here is what a derivation of the client's own did.
 */
import type { Pace } from "../../store/slices.ts";
import type { StorePath } from "../../store/store-path.ts";
import type { ApprovedRuns } from "./approve.ts";
import { climb, dependentsIn } from "./build-order.ts";

export interface Failure {
  /** The derivation that failed, or one of its outputs: upstream names the one or the other. */
  readonly of: StorePath;
  /** What it did, to follow "the build of X": our own text around what the client's own derivation contributed. */
  readonly what: string;
  /** Paths that the client may only be told of if it may know of them. */
  readonly paths: readonly StorePath[];
}

interface Kind {
  readonly pattern: RegExp;
  /** `of` and the groups after it. */
  what(...groups: string[]): string;
  paths?(...groups: string[]): string[];
}

/** The longest text of upstream's that is looked at, in characters. */
const LONGEST = 64 * 1024;

const DERIVATION = String.raw`'(?<of>/[^']+\.drv)'`;
const ANY_PATH = `['"](?<of>/[^'"]+)['"]`;
/** Nothing may stand between the derivation and what it did, for that could be another one's. */
const CANNOT_BUILD = String.raw`(?:builder for|Cannot build) ${DERIVATION}(?:\.\s+Reason: builder)?`;

/** Without colours. Up to 2.30 "builder for '…' failed with …", later "Cannot build '…'. Reason: builder failed with …". */
const kinds: readonly Kind[] = [
  {
    pattern: new RegExp(`${CANNOT_BUILD} failed with exit code (\\d{1,3})(?!\\d)`, "g"),
    what: (code) => `failed with exit code ${code}`,
  },
  {
    pattern: new RegExp(`${CANNOT_BUILD} failed due to signal (\\d{1,3})(?!\\d)`, "g"),
    what: (signal) => `was killed by signal ${signal}`,
  },
  {
    pattern: new RegExp(
      `builder for ${DERIVATION} failed to produce output path (?:for output )?'([^']+)'`,
      "g",
    ),
    what: (output) => `did not produce its output '${output}'`,
  },
  {
    pattern: new RegExp(
      `cycle detected in build of ${DERIVATION} in the references of output '([^']{1,200})' from output '([^']{1,200})'`,
      "g",
    ),
    what: (a, b) => `produced outputs that refer to each other: '${a}' and '${b}'`,
  },
  {
    pattern: new RegExp(`cycle detected in the references of ${ANY_PATH} from '/[^']+'`, "g"),
    what: () => "produced outputs that refer to each other",
  },
  {
    pattern: new RegExp(
      `output ${ANY_PATH} is not allowed to refer to the following paths:((?:\\s+/\\S+)+)`,
      "g",
    ),
    what: () => "produced an output that refers to paths which the derivation forbids",
    paths: (list) => list.trim().split(/\s+/),
  },
  {
    pattern: new RegExp(
      `output ${ANY_PATH} is not allowed to refer to (?:path|output) ['"](/[^'"]+)['"]`,
      "g",
    ),
    what: () => "produced an output that refers to paths which the derivation forbids",
    paths: (path) => [path],
  },
  {
    pattern: new RegExp(
      `(?:path|closure of path) ${ANY_PATH} is too large at (\\d+) bytes; limit is (\\d+) bytes`,
      "g",
    ),
    what: (size, limit) =>
      `produced an output of ${size} bytes, more than the ${limit} that the derivation allows`,
  },
  {
    pattern: new RegExp(
      `a '([^']{1,100})' with features \\{([^}]{0,1000})\\} is required to build ${DERIVATION}`,
      "g",
    ),
    what: (system, features) => needsMachine(system, features),
  },
  {
    pattern: new RegExp(
      `Cannot build ${DERIVATION}\\.\\s+Reason: platform mismatch\\s+Required system: '([^']{1,100})'`,
      "g",
    ),
    what: (system) => needsMachine(system, ""),
  },
  {
    pattern: new RegExp(
      `Cannot build ${DERIVATION}\\.\\s+Reason: (?:missing system features|required system features? not available)\\s+Required features: \\{([^}]{0,1000})\\}`,
      "g",
    ),
    what: (features) => needsMachine("", features),
  },
  {
    pattern: new RegExp(`file ${ANY_PATH} has an unsupported type`, "g"),
    what: () => "produced a file of a type that the store cannot hold",
  },
  {
    pattern: new RegExp(
      `hash mismatch in fixed-output derivation ${ANY_PATH}:\\s+(?:wanted|specified): +(\\S{1,200})\\s+got: +(\\S{1,200})`,
      "g",
    ),
    what: (wanted, got) => `produced contents with another hash: specified ${wanted}, got ${got}`,
  },
  {
    pattern: /building of '(?<of>\/[^'!^]+\.drv)[^']*'(?: from \.drv file)? timed out after (\d+) seconds/g,
    what: (seconds) => `took longer than ${seconds} seconds`,
  },
];

function needsMachine(system = "", features = ""): string {
  const wanted = features.trim() === "" ? "" : ` with the features {${features.trim()}}`;
  return `needs a machine${system === "" ? "" : ` of the system '${system}'`}${wanted}, which the nix-daemon does not have`;
}

/** Some outputs are named by where they are while they are built. */
function outsideOfChroot(path: string): StorePath {
  const end = path.indexOf(".chroot/");
  return end < 0 ? path : path.slice(0, end);
}

/** The last lines of a text that are no longer together. Whole ones: the front of a line says whether it is a builder's. */
export function lastLines(text: string, most: number): string {
  if (text.length <= most) return text;
  const from = text.indexOf("\n", text.length - most - 1);
  return from < 0 ? "" : text.slice(from + 1);
}

/** All that the words tell of, in their order. */
export function failuresIn(words: string): Failure[] {
  // Lines of the builders' own logs are among upstream's words, and could say anything, for other derivations too.
  const text = lastLines(words, LONGEST)
    .replaceAll(/\x1b\[[0-9;]*m/g, "")
    .split("\n")
    .filter((line) => !/^\s*>/.test(line))
    .join("\n");
  const found: (Failure & { at: number })[] = [];
  for (const { pattern, what, paths } of kinds)
    for (const match of text.matchAll(pattern)) {
      const { of } = match.groups!;
      const details = match.slice(1).filter((group) => group !== of);
      found.push({
        of: outsideOfChroot(of!),
        what: what(...details),
        paths: paths?.(...details) ?? [],
        at: match.index,
      });
    }
  return found.sort((a, b) => a.at - b.at).map(({ at: _, ...failure }) => failure);
}

/** The derivation that failed, and what it did. */
export interface Culprit {
  readonly derivation: StorePath;
  readonly failure: Failure;
  /** Those of the failure's paths that derivations of this request make: the client knows them, in the view or not. */
  readonly ownPaths: readonly StorePath[];
}

/**
 * Over what each of those that may run failed, as far as the words tell: over the first failure of its own or of one of its
 * inputs. In slices, and from the failures up: a request may have thousands of targets, each with the next one below it.
 */
export async function culpritsOf(
  runs: ApprovedRuns,
  words: Iterable<string>,
  pace: Pace,
): Promise<ReadonlyMap<StorePath, Culprit>> {
  const culprits = new Map<StorePath, Culprit>();
  const failures: Failure[] = [];
  for (const text of new Set(words)) {
    if (pace.due) await pace.pause();
    for (const failure of failuresIn(text)) failures.push(failure);
  }
  if (failures.length === 0) return culprits;
  const named = await namesIn(runs, pace);
  const dependents = await dependentsIn(runs, pace);
  const seen = new Set<readonly StorePath[]>();
  for (const failure of failures) {
    const found = named.paths.get(failure.of) ?? named.fetched.get(nameOf(failure.of));
    if (!found || seen.has(found)) continue;
    seen.add(found);
    const ownPaths = failure.paths.filter((path) => named.paths.has(path));
    for (const derivation of found) {
      const culprit = { derivation, failure, ownPaths };
      const visit = (path: StorePath): boolean => !culprits.has(path) && Boolean(culprits.set(path, culprit));
      await climb(dependents, derivation, visit, pace);
    }
  }
  return culprits;
}

/** What the words may call the derivations that may run. */
interface Named {
  /** By their own paths, and those of their outputs. */
  readonly paths: ReadonlyMap<StorePath, readonly StorePath[]>;
  /**
   * Those that fetch, by the names of their outputs: up to 2.3 a mismatch is told of the path that the contents would have
   * had, which has the right name alone.
   */
  readonly fetched: ReadonlyMap<string, readonly StorePath[]>;
}

async function namesIn(runs: ApprovedRuns, pace: Pace): Promise<Named> {
  const paths = new Map<StorePath, StorePath[]>();
  const fetched = new Map<string, StorePath[]>();
  const add = (names: Map<string, StorePath[]>, name: string, derivation: StorePath): void => {
    const known = names.get(name);
    if (known) known.push(derivation);
    else names.set(name, [derivation]);
  };
  for (const [derivation, { outputs, fetches }] of runs) {
    if (pace.due) await pace.pause();
    paths.set(derivation, [derivation]);
    for (const output of outputs.values()) {
      if (output === "") continue;
      add(paths, output, derivation);
      if (fetches) add(fetched, nameOf(output), derivation);
    }
  }
  return { paths, fetched };
}

function nameOf(path: string): string {
  return path.slice(path.indexOf("-") + 1);
}
