/** Which forwarder does which operation: one for each `forward` of `policy/rules.ts`. */
import type { OperationName, ReplyOf, RequestOf } from "../../protocol/operations.ts";
import { addTextToStore, addToStore } from "./add.ts";
import { buildPaths, buildPathsWithResults } from "./build.ts";
import type { Exchange, REPLIED } from "./exchange.ts";
import { addMultipleToStore, addToStoreNar } from "./nar.ts";
import { narFromPath, queryRealisation } from "./read.ts";
import { addToStoreScanning } from "./scanning.ts";

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
