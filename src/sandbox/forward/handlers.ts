/**
 * The handlers of what `policy/rules.ts` neither answers from the view nor denies: one row for each such
 * rule, under the same name, so that editors can go from a rule to its handler and back. A missing row, a
 * superfluous one, or a handler of another operation is a compiler error.
 */
import type { HandledRules } from "../../policy/rules.ts";
import type { OperationName, ReplyOf, RequestOf } from "../../protocol/operations.ts";
import { setOptions } from "../client-options.ts";
import { addTextToStore, addToStore } from "./add.ts";
import { buildPaths, buildPathsWithResults } from "./build.ts";
import type { Exchange, REPLIED } from "./exchange.ts";
import { ensurePath } from "./held-outputs.ts";
import { queryMissing } from "./missing.ts";
import { addMultipleToStore, addToStoreNar } from "./nar.ts";
import { narFromPath, queryRealisation } from "./read.ts";
import { addIndirectRoot, addTempRoot, addTempRoots } from "./roots.ts";
import { addToStoreScanning } from "./scanning.ts";

/** @throws Refusal, NotInView, or what went wrong on the way */
type Handler<N extends OperationName> = (
  exchange: Exchange<N>,
  request: RequestOf<N>,
) => Promise<ReplyOf<N> | typeof REPLIED>;

const table: { readonly [N in keyof HandledRules]: Handler<N> } = {
  AddTempRoot: addTempRoot,
  AddTempRoots: addTempRoots,
  AddIndirectRoot: addIndirectRoot,
  AddToStore: addToStore,
  AddTextToStore: addTextToStore,
  AddToStoreNar: addToStoreNar,
  AddMultipleToStore: addMultipleToStore,
  AddToStoreScanning: addToStoreScanning,
  BuildPaths: buildPaths,
  BuildPathsWithResults: buildPathsWithResults,
  EnsurePath: ensurePath,
  NarFromPath: narFromPath,
  QueryMissing: queryMissing,
  QueryRealisation: queryRealisation,
  SetOptions: setOptions,
};

export const handlers: { readonly [N in OperationName]?: Handler<N> } = table;
