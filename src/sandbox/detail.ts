/** What the record of a request keeps besides the fields that all records have; docs/audit.md has the table. */
import type { OperationName } from "../protocol/operations.ts";
import type { StorePath } from "../store/store-path.ts";

/** Something that was to be built, but was not. */
export type BuildFailure = {
  /** As the client named it. */
  readonly path: string;
  /** What the client was told. */
  readonly reason: string;
  /** Upstream's message; absent if it has none, because it did not get that far. */
  readonly upstreamError?: string;
};

export type Detail = {
  /** Names of the settings that were ignored. */
  settingsDropped: readonly string[];
  /** How many more there were. */
  settingsOmitted: number;
  /** What was added, if the request could not name it. */
  path: StorePath;
  /** What was added by one request for many. */
  paths: readonly StorePath[];
  /** Lines of builds that the client does not get. */
  hiddenLog: readonly string[];
  /** How many lines were not sent because the client did not read. */
  logLinesDropped: number;
  /** Paths that upstream was asked to fetch from its caches. */
  fetched: readonly StorePath[];
  failures: readonly BuildFailure[];
  /** How many more there were. */
  failuresOmitted: number;
};

type BuildFields = "hiddenLog" | "logLinesDropped" | "fetched";

/** The fields of each operation; the others have none. */
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
