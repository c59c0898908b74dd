/** The operation table compiled for one dialect: what a connection looks its operations up in. */
import { type CodecContext, type Compiled, compile } from "./compile.ts";
import {
  type Body,
  type Operation,
  type OperationName,
  operationNames,
  operations,
  type ReplyOf,
  type RequestOf,
} from "./operations.ts";
import { dialectName } from "./version.ts";

/** One operation, ready to be read and written in one dialect. */
export interface BoundOperation<N extends OperationName = OperationName> {
  readonly name: N;
  readonly number: number;
  readonly request: Compiled<RequestOf<N>>;
  readonly reply: Compiled<ReplyOf<N>>;
  readonly body: Body;
  readonly replyBody: Body;
}

type BoundOperations = { readonly [N in OperationName]: BoundOperation<N> };

export interface DialectTable extends CodecContext {
  /** Only for operations that this version has: in older ones their bodies are not defined. */
  readonly byNumber: ReadonlyMap<number, BoundOperation>;
  readonly byName: BoundOperations;
}

const rows: { readonly [N in OperationName]: Operation<RequestOf<N>, ReplyOf<N>> } = operations;

const tables = new Map<string, DialectTable>();

/**
 * The table for a dialect; made once for each. A dialect contains only known features, so that a client
 * cannot create an unlimited number of tables.
 */
export function tableFor(context: CodecContext): DialectTable {
  const key = `${dialectName(context)} ${context.storeDir}`;
  let table = tables.get(key);
  if (!table) {
    const bound = operationNames.map((name) => bind(name, context));
    table = {
      minor: context.minor,
      features: context.features,
      storeDir: context.storeDir,
      byNumber: new Map(
        bound.filter(({ name }) => operations[name].since <= context.minor).map((row) => [row.number, row]),
      ),
      byName: Object.fromEntries(bound.map((row) => [row.name, row])) as BoundOperations,
    };
    tables.set(key, table);
  }
  return table;
}

function bind<N extends OperationName>(name: N, context: CodecContext): BoundOperation<N> {
  const row = rows[name];
  return {
    name,
    number: row.number,
    request: compile(row.request, context),
    reply: compile(row.reply, context),
    body: row.body?.(context.minor) ?? "none",
    replyBody: row.replyBody ?? "none",
  };
}
