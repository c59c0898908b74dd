/**
 * Makes readers and writers out of codecs, for one dialect and one store folder, once.
 *
 * `decode` and `encode` are synchronous and work on whole messages. `read` decodes a message while its bytes
 * arrive: it continues where it stopped, so a peer that sends one byte at a time, or a list of half a million
 * elements, costs no more than what it sent, and others get their turn whenever it stops. `write` does the
 * same for values that can be long.
 */
import type { Slices } from "../store/slices.ts";
import { isStorePath } from "../store/store-path.ts";
import type { Codec, Node } from "./codec.ts";
import type { Dialect } from "./version.ts";
import { checkFlag, type Decoder, type Encoder, UNDERFLOW, WireError } from "./wire.ts";

/** What is needed to compile a codec. */
export interface CodecContext extends Dialect {
  /** `/nix/store`, or wherever upstream keeps its store. */
  readonly storeDir: string;
}

/** A value that is read while it arrives: yields how many bytes it needs to continue. */
export type Reading<T> = Generator<number, T, undefined>;

/** A codec compiled for one dialect. */
export interface Compiled<T> {
  /** No value takes fewer bytes. */
  readonly least: number;
  /** @throws UNDERFLOW when the bytes end before the value; WireError when they are not such a value. */
  decode(decoder: Decoder): T;
  /**
   * As `decode`. After each yield the decoder must be at the same position, with at least this many bytes
   * available.
   */
  read(decoder: Decoder): Reading<T>;
  encode(encoder: Encoder, value: T): void;
  /** Like `encode`, for values that may contain a list: the encoder's bytes may be taken at each yield. */
  write?(encoder: Encoder, value: T): Slices<void>;
}

export function compile<T>(codec: Codec<T>, context: CodecContext): Compiled<T> {
  return compileNode(codec.node, context) as Compiled<T>;
}

/** Elements of a list that are written between two yields. */
const ELEMENTS_A_SLICE = 256;

function fixed<T>(
  decode: (decoder: Decoder) => T,
  encode: (encoder: Encoder, value: unknown) => void,
): Compiled<unknown> {
  return {
    least: 8,
    decode,
    *read(d) {
      while (!d.has(8)) yield 8;
      return decode(d);
    },
    encode,
  };
}

function stringLike<T>(
  decode: (decoder: Decoder) => T,
  encode: (encoder: Encoder, value: unknown) => void,
): Compiled<unknown> {
  return {
    least: 8,
    decode,
    *read(d) {
      while (!d.has(8)) yield 8;
      const size = d.stringSize();
      while (!d.has(size)) yield size;
      return decode(d);
    },
    encode,
  };
}

const stringCodec: Compiled<unknown> = {
  least: 8,
  decode: (d) => d.string(),
  *read(d) {
    while (!d.has(8)) yield 8;
    const size = d.stringSize();
    if (size > d.longestKept) return yield* d.frontOfString();
    while (!d.has(size)) yield size;
    return d.string();
  },
  encode: (e, v) => e.string(v as string),
};

function compileNode(node: Node, context: CodecContext): Compiled<unknown> {
  switch (node.kind) {
    case "u64":
      return fixed(
        (d) => d.u64(),
        (e, v) => e.u64(v as number),
      );
    case "big":
      return fixed(
        (d) => d.big(),
        (e, v) => e.big(v as bigint),
      );
    case "bool":
      return fixed(decodeBool, (e, v) => e.u64(v ? 1 : 0));
    case "string":
      return stringCodec;
    case "bytes":
      return stringLike(
        (d) => d.bytes(),
        (e, v) => e.bytes(v as Buffer),
      );
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

function* writeOne(of: Compiled<unknown>, encoder: Encoder, value: unknown): Slices<void> {
  if (of.write) yield* of.write(encoder, value);
  else of.encode(encoder, value);
}

function decodeBool(decoder: Decoder): boolean {
  return checkFlag(decoder.u64());
}

function storePathCodec(optional: boolean, storeDir: string): Compiled<unknown> {
  return stringLike(
    (d) => {
      const path = d.string();
      if (!(optional && path === "") && !isStorePath(path, storeDir))
        throw new WireError(`'${path.slice(0, 300)}' is not a path in the store ${storeDir}`);
      return path;
    },
    (e, v) => e.string(v as string),
  );
}

function listCodec(of: Compiled<unknown>): Compiled<unknown> {
  return {
    least: 8,
    decode(d) {
      const values: unknown[] = [];
      for (let left = d.count(); left > 0; left--) values.push(of.decode(d));
      return values;
    },
    *read(d) {
      while (!d.has(8)) yield 8;
      const values: unknown[] = [];
      for (let left = d.count(); left > 0; left--) {
        const { offset } = d;
        try {
          // Most elements of a long list have already arrived when their turn comes.
          values.push(of.decode(d));
        } catch (error) {
          if (error !== UNDERFLOW) throw error;
          d.offset = offset;
          values.push(yield* of.read(d));
        }
      }
      return values;
    },
    encode(e, v) {
      const values = v as unknown[];
      e.u64(values.length);
      for (const value of values) of.encode(e, value);
    },
    *write(e, v) {
      const values = v as unknown[];
      e.u64(values.length);
      let written = 0;
      for (const value of values) {
        if (++written % ELEMENTS_A_SLICE === 0) yield;
        if (of.write) yield* of.write(e, value);
        else of.encode(e, value);
      }
    },
  };
}

function mapCodec(key: Compiled<unknown>, value: Compiled<unknown>): Compiled<unknown> {
  const repeated = (): WireError => new WireError("a map has the same key twice");
  return {
    least: 8,
    decode(d) {
      const entries = new Map<unknown, unknown>();
      for (let left = d.entries(); left > 0; left--) {
        const k = key.decode(d);
        if (entries.has(k)) throw repeated();
        entries.set(k, value.decode(d));
      }
      return entries;
    },
    *read(d) {
      while (!d.has(8)) yield 8;
      const entries = new Map<unknown, unknown>();
      for (let left = d.entries(); left > 0; left--) {
        const k = yield* key.read(d);
        if (entries.has(k)) throw repeated();
        entries.set(k, yield* value.read(d));
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
    *write(e, v) {
      const entries = v as Map<unknown, unknown>;
      e.u64(entries.size);
      let written = 0;
      for (const [k, item] of entries) {
        if (++written % ELEMENTS_A_SLICE === 0) yield;
        key.encode(e, k);
        yield* writeOne(value, e, item);
      }
    },
  };
}

function optionalCodec(of: Compiled<unknown>): Compiled<unknown> {
  return {
    least: 8,
    decode: (d) => (decodeBool(d) ? of.decode(d) : undefined),
    *read(d) {
      while (!d.has(8)) yield 8;
      return decodeBool(d) ? yield* of.read(d) : undefined;
    },
    encode(e, v) {
      e.u64(v === undefined ? 0 : 1);
      if (v !== undefined) of.encode(e, v);
    },
    ...(of.write && {
      *write(e: Encoder, v: unknown) {
        e.u64(v === undefined ? 0 : 1);
        if (v !== undefined) yield* writeOne(of, e, v);
      },
    }),
  };
}

function structCodec(fields: ReadonlyArray<readonly [string, Compiled<unknown>]>): Compiled<unknown> {
  return {
    least: fields.reduce((sum, [, field]) => sum + field.least, 0),
    decode(d) {
      const value: Record<string, unknown> = {};
      for (const [name, field] of fields) value[name] = field.decode(d);
      return value;
    },
    *read(d) {
      const value: Record<string, unknown> = {};
      for (const [name, field] of fields) value[name] = yield* field.read(d);
      return value;
    },
    encode(e, v) {
      for (const [name, field] of fields) field.encode(e, (v as Record<string, unknown>)[name]);
    },
    ...(fields.some(([, field]) => field.write) && {
      *write(e: Encoder, v: unknown) {
        for (const [name, field] of fields) {
          const part = (v as Record<string, unknown>)[name];
          if (field.write) yield* field.write(e, part);
          else field.encode(e, part);
        }
      },
    }),
  };
}

function variantCodec(cases: ReadonlyArray<Compiled<unknown>>): Compiled<unknown> {
  const chosen = (tag: number): Compiled<unknown> => {
    const found = cases[tag];
    if (!found) throw new WireError(`${tag} is not the tag of any known case`);
    return found;
  };
  return {
    least: 8,
    decode(d) {
      const tag = d.u64();
      return { tag, value: chosen(tag).decode(d) };
    },
    *read(d) {
      while (!d.has(8)) yield 8;
      const tag = d.u64();
      return { tag, value: yield* chosen(tag).read(d) };
    },
    encode(e, v) {
      const { tag, value } = v as { tag: number; value: unknown };
      e.u64(tag);
      chosen(tag).encode(e, value);
    },
    ...(cases.some((c) => c.write) && {
      *write(e: Encoder, v: unknown) {
        const { tag, value } = v as { tag: number; value: unknown };
        e.u64(tag);
        yield* writeOne(chosen(tag), e, value);
      },
    }),
  };
}

function absentCodec(absent: unknown): Compiled<unknown> {
  return {
    least: 0,
    decode: () => absent,
    // biome-ignore lint/correctness/useYield: nothing has to arrive.
    *read() {
      return absent;
    },
    encode() {},
  };
}
