/**
 * Codecs are values: trees of a few kinds of node that say how a message lies on the wire and in which
 * versions. `compile.ts` makes readers and writers of them, `document.ts` makes documentation, the tests
 * make random values. Nothing here knows how to do any of that.
 */
import type { Feature } from "./version.ts";

/** One node of a codec. */
export type Node =
  /** unsigned 64-bit integer below 2^53 */
  | { readonly kind: "u64"; readonly about?: string }
  /** all 64 bits, as a bigint */
  | { readonly kind: "big"; readonly about?: string }
  /** 0 or 1 */
  | { readonly kind: "bool" }
  /** byte string, one character a byte */
  | { readonly kind: "string"; readonly about?: string }
  /** byte string as a Buffer */
  | { readonly kind: "bytes" }
  /** full store path; `optional`: the empty string stands for none */
  | { readonly kind: "storePath"; readonly optional: boolean }
  /** count, then the elements */
  | { readonly kind: "list"; readonly of: Node; readonly set: boolean }
  /** count, then alternating keys and values */
  | { readonly kind: "map"; readonly key: Node; readonly value: Node }
  /** 0, or 1 and the value */
  | { readonly kind: "optional"; readonly of: Node }
  /** the fields in order */
  | { readonly kind: "struct"; readonly fields: ReadonlyArray<readonly [string, Node]> }
  /** a number that says which of the cases follows */
  | { readonly kind: "variant"; readonly cases: ReadonlyArray<Node> }
  /** `value` from this minor version on; before it `before`, or no bytes and the value `absent` */
  | {
      readonly kind: "since";
      readonly minor: number;
      readonly value: Node;
      readonly before?: Node;
      readonly absent?: unknown;
    }
  /** `with` where the feature was agreed on, else `without` */
  | { readonly kind: "feature"; readonly feature: Feature; readonly with: Node; readonly without: Node }
  /** nothing at all */
  | { readonly kind: "nothing" };

declare const phantom: unique symbol;

/** How values of type `T` lie on the wire. */
export interface Codec<T> {
  readonly node: Node;
  /** Never set: carries the type for inference. */
  readonly [phantom]?: T;
}

/** The type of the values of a codec. */
export type Infer<C> = C extends Codec<infer T> ? T : never;

function codec<T>(node: Node): Codec<T> {
  return { node };
}

export const u64: Codec<number> = codec({ kind: "u64" });
export const big: Codec<bigint> = codec({ kind: "big" });
export const bool: Codec<boolean> = codec({ kind: "bool" });
export const string: Codec<string> = codec({ kind: "string" });
export const bytes: Codec<Buffer> = codec({ kind: "bytes" });
export const storePath: Codec<string> = codec({ kind: "storePath", optional: false });
/** An absent path is the empty string, here as on the wire. */
export const optionalStorePath: Codec<string> = codec({ kind: "storePath", optional: true });
export const nothing: Codec<undefined> = codec({ kind: "nothing" });

/** A number whose meaning is documented. */
export function number(about: string): Codec<number> {
  return codec({ kind: "u64", about });
}
/** A string whose form is documented. */
export function text(about: string): Codec<string> {
  return codec({ kind: "string", about });
}

export function list<T>(of: Codec<T>): Codec<T[]> {
  return codec({ kind: "list", of: of.node, set: false });
}
/** As `list`; the order means nothing and Nix writes it sorted. */
export function set<T>(of: Codec<T>): Codec<T[]> {
  return codec({ kind: "list", of: of.node, set: true });
}
export function map<K, V>(key: Codec<K>, value: Codec<V>): Codec<Map<K, V>> {
  return codec({ kind: "map", key: key.node, value: value.node });
}
export function optional<T>(of: Codec<T>): Codec<T | undefined> {
  return codec({ kind: "optional", of: of.node });
}

type Fields = Record<string, Codec<unknown>>;
type Struct<F extends Fields> = { [K in keyof F]: Infer<F[K]> };

export function struct<F extends Fields>(fields: F): Codec<Struct<F>> {
  return codec({
    kind: "struct",
    fields: Object.entries(fields).map(([name, { node }]) => [name, node] as const),
  });
}

/** `tag` says which of the cases `value` is. */
export type Variant<C extends readonly Codec<unknown>[]> = {
  [I in keyof C]: { tag: I extends `${infer N extends number}` ? N : never; value: Infer<C[I]> };
}[number];
export function variant<const C extends readonly Codec<unknown>[]>(...cases: C): Codec<Variant<C>> {
  return codec({ kind: "variant", cases: cases.map((c) => c.node) });
}

/** From protocol 1.`minor` on; before it the value is `absent` and takes no bytes. */
export function since<T, A>(minor: number, value: Codec<T>, absent: A): Codec<T | A> {
  return codec({ kind: "since", minor, value: value.node, absent });
}
/** One form from protocol 1.`minor` on, the other before. */
export function sinceElse<T, E>(minor: number, value: Codec<T>, before: Codec<E>): Codec<T | E> {
  return codec({ kind: "since", minor, value: value.node, before: before.node });
}
/** One form if the feature was agreed on, otherwise the other. */
export function feature<T, E>(name: Feature, withIt: Codec<T>, without: Codec<E>): Codec<T | E> {
  return codec({ kind: "feature", feature: name, with: withIt.node, without: without.node });
}
