/** Which forwarder does which operation: one for each `forward` of `policy/rules.ts`. */
import type { OperationName, ReplyOf, RequestOf } from "../protocol/operations.ts";
import type { Exchange, REPLIED } from "./exchange.ts";
import { addTextToStore, addToStore } from "./forward-add.ts";
import { buildPaths, buildPathsWithResults } from "./forward-build.ts";
import { addMultipleToStore, addToStoreNar } from "./forward-nar.ts";
import { narFromPath, queryRealisation } from "./forward-read.ts";
import { addToStoreScanning } from "./forward-scanning.ts";

type Forwarder<N extends OperationName> = (
  exchange: Exchange,
  request: RequestOf<N>,
) => Promise<ReplyOf<N> | typeof REPLIED>;

export const forwarders: { readonly [N in OperationName]?: Forwarder<N> } = {
  AddToStore: addToStore,
  AddTextToStore: addTextToStore,
  AddToStoreNar: addToStoreNar,
  AddMultipleToStore: addMultipleToStore,
  AddToStoreScanning: addToStoreScanning,
  BuildPaths: buildPaths,
  BuildPathsWithResults: buildPathsWithResults,
  NarFromPath: narFromPath,
  QueryRealisation: queryRealisation,
};
