/** Options that a client sends with SetOptions. */
import type { RequestOf } from "../../src/protocol/operations.ts";

/** Nothing in particular. */
export const plainOptions: RequestOf<"SetOptions"> = {
  keepFailed: 0,
  keepGoing: 0,
  tryFallback: 0,
  verbosity: 0,
  maxBuildJobs: 1,
  maxSilentTime: 0,
  useBuildHook: 0,
  verboseBuild: 0,
  logType: 0,
  printBuildTrace: 0,
  buildCores: 1,
  useSubstitutes: 0,
  overrides: new Map(),
};
