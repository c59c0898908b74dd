/**
 * The compound types of the worker protocol (src/libstore/worker-protocol.cc in the Nix tree; the samples
 * under src/libstore-tests/data/worker-protocol/ are what the tests read).
 */
import {
  big,
  bool,
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
  variant,
} from "./codec.ts";

const unkeyedFields = {
  deriver: optionalStorePath,
  narHash: text("SHA-256 of the NAR, base 16"),
  references: set(storePath),
  registrationTime: number("seconds since 1970"),
  narSize: number("bytes"),
  ultimate: bool,
  signatures: set(string),
  contentAddress: text("`text:…` or `fixed:…`, empty if none"),
};

/** What is known of a valid path, without the path. The same since 1.16. */
export const unkeyedValidPathInfo = struct(unkeyedFields);
export type UnkeyedValidPathInfo = Infer<typeof unkeyedValidPathInfo>;

export const validPathInfo = struct({ path: storePath, ...unkeyedFields });
export type ValidPathInfo = Infer<typeof validPathInfo>;

/**
 * What to build or fetch: a store path, or `X.drv!out1,out2`, or `X.drv!*`. A bare `X.drv` means all its
 * outputs below 1.30 and the file itself from 1.30 on.
 */
export const derivedPath = text("store path, or `X.drv!out,…`, or `X.drv!*`");

const opaquePath = struct({ path: storePath });
const ofPath = struct({ derivation: variant(opaquePath), output: string });
const ofOutput = struct({ derivation: variant(opaquePath, ofPath), output: string });

/** A path, or an output of a derivation that may be an output itself; deeper ones than these are not read. */
export const singleDerivedPath = variant(opaquePath, ofOutput);

export const BUILD_MODES = ["normal", "repair", "check"] as const;
export const buildMode = number("0 normal, 1 repair, 2 check");

/**
 * Statuses of a build (BuildResultStatus in src/libstore/common-protocol.cc, Nix 2.34). A hash mismatch is
 * "output rejected" on the wire.
 */
export const BUILD_STATUS = {
  built: 0,
  substituted: 1,
  alreadyValid: 2,
  permanentFailure: 3,
  inputRejected: 4,
  outputRejected: 5,
  transientFailure: 6,
  cachedFailure: 7,
  timedOut: 8,
  miscFailure: 9,
  dependencyFailed: 10,
  logLimitExceeded: 11,
  notDeterministic: 12,
  resolvesToAlreadyValid: 13,
  noSubstituters: 14,
} as const;

export const unkeyedRealisation = struct({ path: storePath, signatures: set(string) });

/** Realisations as JSON texts keyed `sha256:…!out` since 1.28; as paths keyed by output with the feature. */
const builtOutputs = feature(
  "realisation-with-path-not-hash",
  map(string, unkeyedRealisation),
  since(28, map(string, string), undefined),
);

const buildResultFields = {
  status: number("BuildResultStatus"),
  error: string,
  timesBuilt: since(29, u64, 0),
  nonDeterministic: since(29, bool, false),
  startTime: since(29, u64, 0),
  stopTime: since(29, u64, 0),
  cpuUser: since(37, optional(big), undefined),
  cpuSystem: since(37, optional(big), undefined),
  builtOutputs,
};
export const buildResult = struct(buildResultFields);
export type BuildResult = Infer<typeof buildResult>;

export const keyedBuildResult = struct({ path: derivedPath, ...buildResultFields });
export type KeyedBuildResult = Infer<typeof keyedBuildResult>;

/** A derivation without its input derivations, as BuildDerivation sends it. */
export const basicDerivation = struct({
  outputs: map(string, struct({ path: string, hashAlgorithm: string, hash: string })),
  inputSrcs: set(storePath),
  system: string,
  builder: string,
  args: list(string),
  env: map(string, string),
});

/** Names one output of one derivation: a hash up to 2.33, its path with the feature. */
export const drvOutput = feature(
  "realisation-with-path-not-hash",
  struct({ derivation: storePath, output: string }),
  text("`sha256:…!out`"),
);

/** RegisterDrvOutput's request. The oldest form is the only place where a path comes without its folder. */
export const realisation = feature(
  "realisation-with-path-not-hash",
  struct({ derivation: storePath, output: string, path: storePath, signatures: set(string) }),
  sinceElse(31, text("a realisation as JSON"), struct({ id: string, pathBase: text("`<hash>-<name>`") })),
);

export const substitutablePathInfo = struct({
  deriver: optionalStorePath,
  references: set(storePath),
  downloadSize: number("bytes, 0 if unknown"),
  narSize: number("bytes"),
});

/** What CollectGarbage may delete. Without the feature an empty set means the whole store. */
export const pathsToDelete = feature(
  "delete-dead-specific-referrers",
  variant(struct({ paths: set(storePath), deleteReferrers: bool }), nothing),
  set(storePath),
);
