/** What the record of a request keeps beside the fields that all records have; docs/audit.md has the table. */
import type { OperationName } from "../protocol/operations.ts";
import type { StorePath } from "../store/store-path.ts";

/** One of the things that were to be built, and were not. */
export type BuildFailure = {
  /** As the client named it. */
  readonly path: string;
  /** What the client was told. */
  readonly reason: string;
  /** Upstream's words; absent where it has none, for it did not come to it. */
  readonly upstreamError?: string;
};

export type Detail = {
  /** Names of settings that were left out. */
  settingsDropped: readonly string[];
  /** How many more there were. */
  settingsOmitted: number;
  /** What was added, where the request could not name it. */
  path: StorePath;
  /** What was added by one request for many. */
  paths: readonly StorePath[];
  /** Lines of builds that the client does not get. */
  hiddenLog: readonly string[];
  /** How many lines were not sent, for the client did not read. */
  logLinesDropped: number;
  /** Paths that upstream was asked to fetch from its caches. */
  fetched: readonly StorePath[];
  failures: readonly BuildFailure[];
  /** How many more there were. */
  failuresOmitted: number;
};

type BuildFields = "hiddenLog" | "logLinesDropped" | "fetched";

/** The fields that each operation has; the others have none. */
interface FieldsOf {
  SetOptions: "settingsDropped" | "settingsOmitted";
  EnsurePath: "fetched";
  AddToStore: "path";
  AddTextToStore: "path";
  AddToStoreScanning: "path";
  AddMultipleToStore: "paths";
  BuildPaths: BuildFields;
  BuildPathsWithResults: BuildFields | "failures" | "failuresOmitted";
}

export type DetailOf<N extends OperationName> = Partial<
  Pick<Detail, N extends keyof FieldsOf ? FieldsOf[N] : never>
>;
