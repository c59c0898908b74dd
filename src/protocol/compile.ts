/**
 * Makes readers and writers out of codecs, for one dialect and one store folder, once.
 *
 * `decode` is synchronous and works on whole messages. `measure` finds the end of a message whose bytes
 * still arrive: it resumes where it stopped, so a peer that sends one byte at a time, or a list of a
 * million elements, costs no more than what it sent. (Decoding anew at every arrival would be quadratic.)
 */
import { isStorePath } from "../store/store-path.ts";
import type { Codec, Node } from "./codec.ts";
import type { Dialect } from "./version.ts";
import {
  checkCount,
  checkFlag,
  checkLength,
  checkSize,
  type Decoder,
  type Encoder,
  padding,
  WireError,
} from "./wire.ts";

/** What is needed to compile a codec. */
export interface CodecContext extends Dialect {
  /** `/nix/store`, or wherever upstream keeps its store. */
  readonly storeDir: string;
}

/** A codec compiled for one dialect. */
export interface Compiled<T> {
  /** @throws UNDERFLOW when the bytes end before the value; WireError when they are not such a value. */
  decode(decoder: Decoder): T;
  encode(encoder: Encoder, value: T): void;
  /** Yields whenever more bytes are needed; returns when `cursor` stands behind the value. */
  measure(cursor: Cursor): Generator<undefined, void>;
}

/** A place in a message that is still arriving. */
export class Cursor {
  /** The bytes of the message that have arrived; set anew after each arrival. */
  bytes: Buffer;
  offset = 0;
  readonly limit: number;

  constructor(bytes: Buffer, limit: number) {
    this.bytes = bytes;
    this.limit = limit;
  }

  *u64(): Generator<undefined, number> {
    const at = this.offset;
    yield* this.skip(8);
    return Number(this.bytes.readBigUInt64LE(at));
  }

  *skip(length: number): Generator<undefined, void> {
    checkSize(this.offset + length, this.limit);
    while (this.bytes.length - this.offset < length) yield;
    this.offset += length;
  }
}

export function compile<T>(codec: Codec<T>, context: CodecContext): Compiled<T> {
  return compileNode(codec.node, context) as Compiled<T>;
}

const FIXED_8 = function* (cursor: Cursor): Generator<undefined, void> {
  yield* cursor.skip(8);
};
const STRING = function* (cursor: Cursor): Generator<undefined, void> {
  const length = checkLength(yield* cursor.u64(), cursor.limit);
  yield* cursor.skip(length + padding(length));
};

function compileNode(node: Node, context: CodecContext): Compiled<unknown> {
  switch (node.kind) {
    case "u64":
      return { decode: (d) => d.u64(), encode: (e, v) => e.u64(v as number), measure: FIXED_8 };
    case "big":
      return { decode: (d) => d.big(), encode: (e, v) => e.big(v as bigint), measure: FIXED_8 };
    case "bool":
      return { decode: decodeBool, encode: (e, v) => e.u64(v ? 1 : 0), measure: FIXED_8 };
    case "string":
      return { decode: (d) => d.string(), encode: (e, v) => e.string(v as string), measure: STRING };
    case "bytes":
      return { decode: (d) => d.bytes(), encode: (e, v) => e.bytes(v as Buffer), measure: STRING };
    case "storePath":
      return storePathCodec(node.optional, context.storeDir);
    case "list":
      return listCodec(compileNode(node.of, context));
    case "map":
      return mapCodec(compileNode(node.key, context), compileNode(node.value, context));
    case "optional":
      return optionalCodec(compileNode(node.of, context));
    case "struct":
      return structCodec(node.fields.map(([name, field]) => [name, compileNode(field, context)]));
    case "variant":
      return variantCodec(node.cases.map((c) => compileNode(c, context)));
    case "since":
      if (context.minor >= node.minor) return compileNode(node.value, context);
      return node.before ? compileNode(node.before, context) : absentCodec(node.absent);
    case "feature":
      return compileNode(context.features.has(node.feature) ? node.with : node.without, context);
    case "nothing":
      return absentCodec(undefined);
  }
}

function decodeBool(decoder: Decoder): boolean {
  return checkFlag(decoder.u64());
}

function storePathCodec(optional: boolean, storeDir: string): Compiled<unknown> {
  return {
    decode(d) {
      const path = d.string();
      if (!(optional && path === "") && !isStorePath(path, storeDir))
        throw new WireError(`'${path.slice(0, 300)}' is not a path in the store ${storeDir}`);
      return path;
    },
    encode: (e, v) => e.string(v as string),
    measure: STRING,
  };
}

function listCodec(of: Compiled<unknown>): Compiled<unknown> {
  return {
    decode(d) {
      const values: unknown[] = [];
      for (let left = d.count(); left > 0; left--) values.push(of.decode(d));
      return values;
    },
    encode(e, v) {
      const values = v as unknown[];
      e.u64(values.length);
      for (const value of values) of.encode(e, value);
    },
    *measure(cursor) {
      const count = checkCount(yield* cursor.u64(), cursor.limit);
      for (let i = 0; i < count; i++) yield* of.measure(cursor);
    },
  };
}

function mapCodec(key: Compiled<unknown>, value: Compiled<unknown>): Compiled<unknown> {
  return {
    decode(d) {
      const entries = new Map<unknown, unknown>();
      for (let left = d.count(); left > 0; left--) {
        const k = key.decode(d);
        if (entries.has(k)) throw new WireError("a map has the same key twice");
        entries.set(k, value.decode(d));
      }
      return entries;
    },
    encode(e, v) {
      const entries = v as Map<unknown, unknown>;
      e.u64(entries.size);
      for (const [k, item] of entries) {
        key.encode(e, k);
        value.encode(e, item);
      }
    },
    *measure(cursor) {
      const count = checkCount(yield* cursor.u64(), cursor.limit);
      for (let i = 0; i < count; i++) {
        yield* key.measure(cursor);
        yield* value.measure(cursor);
      }
    },
  };
}

function optionalCodec(of: Compiled<unknown>): Compiled<unknown> {
  return {
    decode: (d) => (decodeBool(d) ? of.decode(d) : undefined),
    encode(e, v) {
      e.u64(v === undefined ? 0 : 1);
      if (v !== undefined) of.encode(e, v);
    },
    *measure(cursor) {
      if (checkFlag(yield* cursor.u64())) yield* of.measure(cursor);
    },
  };
}

function structCodec(fields: ReadonlyArray<readonly [string, Compiled<unknown>]>): Compiled<unknown> {
  return {
    decode(d) {
      const value: Record<string, unknown> = {};
      for (const [name, field] of fields) value[name] = field.decode(d);
      return value;
    },
    encode(e, v) {
      for (const [name, field] of fields) field.encode(e, (v as Record<string, unknown>)[name]);
    },
    *measure(cursor) {
      for (const [, field] of fields) yield* field.measure(cursor);
    },
  };
}

function variantCodec(cases: ReadonlyArray<Compiled<unknown>>): Compiled<unknown> {
  const chosen = (tag: number): Compiled<unknown> => {
    const found = cases[tag];
    if (!found) throw new WireError(`${tag} is not the tag of any known case`);
    return found;
  };
  return {
    decode(d) {
      const tag = d.u64();
      return { tag, value: chosen(tag).decode(d) };
    },
    encode(e, v) {
      const { tag, value } = v as { tag: number; value: unknown };
      e.u64(tag);
      chosen(tag).encode(e, value);
    },
    *measure(cursor) {
      yield* chosen(yield* cursor.u64()).measure(cursor);
    },
  };
}

function absentCodec(absent: unknown): Compiled<unknown> {
  return { decode: () => absent, encode() {}, *measure() {} };
}
