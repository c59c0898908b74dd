/**
 * The operation table: each operation of the worker protocol once. What follows from it: the readers and
 * writers of every version (`compile.ts`), docs/operations.md (`document.ts`), the property tests and the
 * fuzz targets. The policy (`policy/rules.ts`) is a second table over the same names.
 *
 * Sources: src/libstore/daemon.cc and worker-protocol.hh of Nix 2.3 (1.21), 2.8 (1.34), 2.26 and 2.34 (1.38), its master, and
 * Determinate Nix 3.22.
 */
import {
  big,
  bool,
  type Codec,
  feature,
  type Infer,
  list,
  map,
  nothing,
  number,
  optional,
  optionalStorePath,
  set,
  since,
  sinceElse,
  storePath,
  string,
  struct,
  text,
  u64,
} from "./codec.ts";
import {
  basicDerivation,
  buildMode,
  buildResult,
  derivedPath,
  drvOutput,
  keyedBuildResult,
  pathsToDelete,
  realisation,
  singleDerivedPath,
  substitutablePathInfo,
  unkeyedRealisation,
  unkeyedValidPathInfo,
  validPathInfo,
} from "./types.ts";

/**
 * Bulk data behind a request or a reply:
 * - `framed`: pieces with a length before each, ended by an empty one;
 * - `nar`: a bare NAR, which ends where its grammar ends;
 * - `pulled`: the daemon asks for it piece by piece with STDERR_READ.
 */
export type Body = "none" | "framed" | "nar" | "pulled";

/** One row of the table. */
export interface Operation<Request = unknown, Reply = unknown> {
  readonly number: number;
  readonly about: string;
  /**
   * The first and the last minor version at which a Nix client sends it. Daemons do not check this, and know
   * obsolete rows longer than clients send them: up to Nix 2.33 (1.38).
   */
  readonly since: number;
  readonly until?: number;
  readonly request: Codec<Request>;
  readonly reply: Codec<Reply>;
  /** What follows the request, by minor version. */
  readonly body?: (minor: number) => Body;
  /** What follows the reply. */
  readonly replyBody?: Body;
}

/** Rows older than 1.21, which every supported version may send. */
const ALWAYS = 0;

function operation<Q, R>(row: Omit<Operation<Q, R>, "since"> & { since?: number }): Operation<Q, R> {
  return { since: ALWAYS, ...row };
}

const path = struct({ path: storePath });
const paths = set(storePath);
/** Replies that only mean "done" carry a 1 if they carry anything. */
const done = number("always 1");
function framed(): Body {
  return "framed";
}

const addedPath = struct({ path: storePath });

export const operations = {
  IsValidPath: operation({ number: 1, about: "Is this path valid?", request: path, reply: bool }),
  HasSubstitutes: operation({
    number: 3,
    until: 11,
    about: "Could this path be substituted? (obsolete)",
    request: path,
    reply: bool,
  }),
  QueryPathHash: operation({
    number: 4,
    until: 15,
    about: "The NAR hash of a path (obsolete)",
    request: path,
    reply: string,
  }),
  QueryReferences: operation({
    number: 5,
    until: 15,
    about: "The references of a path (obsolete)",
    request: path,
    reply: paths,
  }),
  QueryReferrers: operation({
    number: 6,
    about: "The paths that refer to a path",
    request: path,
    reply: paths,
  }),
  AddToStore: operation({
    number: 7,
    about: "Add a file or tree, content-addressed",
    request: sinceElse(
      25,
      struct({
        name: string,
        method: text("`text:sha256`, `fixed:sha256`, `fixed:r:sha256`, …"),
        references: paths,
        repair: bool,
      }),
      struct({ name: string, fixed: bool, recursive: bool, hashAlgorithm: string }),
    ),
    reply: sinceElse(25, validPathInfo, addedPath),
    body: (minor) => (minor >= 25 ? "framed" : "nar"),
  }),
  AddTextToStore: operation({
    number: 8,
    until: 24,
    about: "Add a text with references (derivations, `builtins.toFile`)",
    request: struct({ name: string, text: string, references: paths }),
    reply: addedPath,
  }),
  BuildPaths: operation({
    number: 9,
    about: "Build or fetch paths",
    request: struct({ paths: list(derivedPath), mode: buildMode }),
    reply: done,
  }),
  EnsurePath: operation({
    number: 10,
    about: "Make a path valid by fetching it",
    request: path,
    reply: done,
  }),
  AddTempRoot: operation({
    number: 11,
    about: "Keep a path while the connection is open",
    request: path,
    reply: done,
  }),
  AddIndirectRoot: operation({
    number: 12,
    about: "Register a symlink outside the store as a root",
    request: struct({ link: string }),
    reply: done,
  }),
  SyncWithGC: operation({
    number: 13,
    until: 32,
    about: "Wait for a garbage collection (obsolete)",
    request: nothing,
    reply: done,
  }),
  FindRoots: operation({
    number: 14,
    about: "All garbage collector roots",
    request: nothing,
    reply: list(struct({ link: string, target: storePath })),
  }),
  ExportPath: operation({
    number: 16,
    until: 15,
    about: "Write a path as an export stream (obsolete)",
    request: struct({ path: storePath, sign: number("obsolete") }),
    reply: done,
  }),
  QueryDeriver: operation({
    number: 18,
    until: 15,
    about: "The derivation that made a path (obsolete)",
    request: path,
    reply: optionalStorePath,
  }),
  SetOptions: operation({
    number: 19,
    about: "Settings for this connection",
    request: struct({
      keepFailed: u64,
      keepGoing: u64,
      tryFallback: u64,
      verbosity: number("0 error … 3 info … 7 vomit"),
      maxBuildJobs: u64,
      maxSilentTime: number("seconds, 0 for none"),
      useBuildHook: number("obsolete"),
      verboseBuild: number("0 means: show build logs"),
      logType: number("obsolete"),
      printBuildTrace: number("obsolete"),
      buildCores: u64,
      useSubstitutes: u64,
      overrides: map(string, string),
    }),
    reply: nothing,
  }),
  CollectGarbage: operation({
    number: 20,
    about: "Delete or list garbage",
    request: struct({
      action: number("0 live, 1 dead, 2 delete dead, 3 delete these"),
      paths: pathsToDelete,
      ignoreLiveness: u64,
      maxFreed: big,
      obsolete1: u64,
      obsolete2: u64,
      obsolete3: u64,
    }),
    reply: struct({ paths: list(string), bytesFreed: big, obsolete: u64 }),
  }),
  QuerySubstitutablePathInfo: operation({
    number: 21,
    until: 11,
    about: "What a substituter knows about a path (obsolete)",
    request: path,
    reply: optional(substitutablePathInfo),
  }),
  QueryDerivationOutputs: operation({
    number: 22,
    until: 21,
    about: "Output paths of a derivation",
    request: path,
    reply: paths,
  }),
  QueryAllValidPaths: operation({ number: 23, about: "Every valid path", request: nothing, reply: paths }),
  QueryFailedPaths: operation({
    number: 24,
    until: 15,
    about: "Cached build failures (obsolete)",
    request: nothing,
    reply: paths,
  }),
  ClearFailedPaths: operation({
    number: 25,
    until: 15,
    about: "Forget cached build failures (obsolete)",
    request: struct({ paths: list(string) }),
    reply: done,
  }),
  QueryPathInfo: operation({
    number: 26,
    about: "What is known about a path",
    request: path,
    reply: optional(unkeyedValidPathInfo),
  }),
  ImportPaths: operation({
    number: 27,
    until: 17,
    about: "Read paths from an export stream (obsolete)",
    request: nothing,
    reply: paths,
    body: () => "pulled",
  }),
  QueryDerivationOutputNames: operation({
    number: 28,
    until: 21,
    about: "Output names of a derivation",
    request: path,
    reply: set(string),
  }),
  QueryPathFromHashPart: operation({
    number: 29,
    about: "The valid path with this hash part",
    request: struct({ hashPart: string }),
    reply: optionalStorePath,
  }),
  QuerySubstitutablePathInfos: operation({
    number: 30,
    about: "What substituters know about paths",
    request: struct({ paths: sinceElse(22, map(storePath, text("content address, or empty")), paths) }),
    reply: map(storePath, substitutablePathInfo),
  }),
  QueryValidPaths: operation({
    number: 31,
    about: "Which of these paths are valid?",
    request: struct({ paths, substitute: since(27, u64, 0) }),
    reply: paths,
  }),
  QuerySubstitutablePaths: operation({
    number: 32,
    about: "Which of these paths could be substituted?",
    request: struct({ paths }),
    reply: paths,
  }),
  QueryValidDerivers: operation({
    number: 33,
    about: "Valid derivations that have this output",
    request: path,
    reply: paths,
  }),
  OptimiseStore: operation({ number: 34, about: "Hard-link identical files", request: nothing, reply: done }),
  VerifyStore: operation({
    number: 35,
    about: "Check and repair the store",
    request: struct({ checkContents: bool, repair: bool }),
    reply: bool,
  }),
  BuildDerivation: operation({
    number: 36,
    about: "Build a derivation that is not in the store",
    request: struct({ path: storePath, derivation: basicDerivation, mode: buildMode }),
    reply: buildResult,
  }),
  AddSignatures: operation({
    number: 37,
    about: "Add signatures to a path",
    request: struct({ path: storePath, signatures: set(string) }),
    reply: done,
  }),
  NarFromPath: operation({
    number: 38,
    about: "The contents of a path",
    request: path,
    reply: nothing,
    replyBody: "nar",
  }),
  AddToStoreNar: operation({
    number: 39,
    about: "Add a path with its metadata",
    request: struct({
      path: storePath,
      deriver: optionalStorePath,
      narHash: text("SHA-256 of the NAR, base 16"),
      references: paths,
      registrationTime: u64,
      narSize: number("bytes"),
      ultimate: bool,
      signatures: set(string),
      contentAddress: string,
      repair: bool,
      dontCheckSigs: bool,
    }),
    reply: nothing,
    body: (minor) => (minor >= 23 ? "framed" : "pulled"),
  }),
  QueryMissing: operation({
    number: 40,
    about: "What would have to be built or fetched?",
    request: struct({ paths: list(derivedPath) }),
    reply: struct({
      willBuild: paths,
      willSubstitute: paths,
      unknown: paths,
      downloadSize: u64,
      narSize: u64,
    }),
  }),
  QueryDerivationOutputMap: operation({
    number: 41,
    since: 22,
    about: "Output names and paths of a derivation",
    request: path,
    reply: map(string, optionalStorePath),
  }),
  RegisterDrvOutput: operation({
    number: 42,
    since: 27,
    about: "Register what a content-addressed derivation resolved to",
    request: struct({ realisation }),
    reply: nothing,
  }),
  QueryRealisation: operation({
    number: 43,
    since: 27,
    about: "What a content-addressed derivation's output resolved to",
    request: struct({ output: drvOutput }),
    reply: feature(
      "realisation-with-path-not-hash",
      optional(unkeyedRealisation),
      sinceElse(31, set(text("a realisation as JSON")), paths),
    ),
  }),
  AddMultipleToStore: operation({
    number: 44,
    since: 32,
    about: "Add many paths: a count, then ValidPathInfo (as of 1.16) and NAR of each, in one framed stream",
    request: struct({ repair: bool, dontCheckSigs: bool }),
    reply: nothing,
    body: framed,
  }),
  AddBuildLog: operation({
    number: 45,
    since: 32,
    about: "Add the log of a build",
    request: struct({ path: text("`<hash>-<name>` of the derivation") }),
    reply: done,
    body: framed,
  }),
  BuildPathsWithResults: operation({
    number: 46,
    since: 34,
    about: "Build or fetch paths, and report on each",
    request: struct({ paths: list(derivedPath), mode: buildMode }),
    reply: list(keyedBuildResult),
  }),
  AddPermRoot: operation({
    number: 47,
    since: 36,
    about: "Make a root",
    request: struct({ path: storePath, link: string }),
    reply: string,
  }),
  QueryActiveBuilds: operation({
    number: 48,
    since: 38,
    about: "What is being built (Determinate Nix, feature `queryActiveBuilds`)",
    request: nothing,
    reply: text("a list as JSON"),
  }),
  AddTempRoots: operation({
    number: 49,
    since: 38,
    about: "Keep many paths while the connection lives (Determinate Nix, feature `addTempRoots`)",
    request: struct({ paths }),
    reply: done,
  }),
  QueryPathInfos: operation({
    number: 50,
    since: 38,
    about: "Metadata of those of many paths that are valid (Determinate Nix, feature `queryPathInfos`)",
    request: struct({ paths }),
    reply: list(validPathInfo),
  }),
  SubmitOutput: operation({
    number: 1000,
    since: 38,
    about:
      "Say what an output of the running build is (on the socket of `builder-rpc-v0`, feature `submit-output`)",
    request: struct({ path: singleDerivedPath, output: string }),
    reply: done,
  }),
  AddToStoreScanning: operation({
    number: 1001,
    since: 38,
    about: "Add a file or tree; the daemon finds its references (feature `add-to-store-scanning`)",
    request: struct({ name: string, method: string }),
    reply: validPathInfo,
    body: framed,
  }),
} as const;

export type Operations = typeof operations;
export type OperationName = keyof Operations;
export type RequestOf<N extends OperationName> = Infer<Operations[N]["request"]>;
export type ReplyOf<N extends OperationName> = Infer<Operations[N]["reply"]>;

export const operationNames = Object.keys(operations) as OperationName[];
