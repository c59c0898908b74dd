/**
 * For each operation of the worker protocol the worst requests within the limits: wide, long, repeated. The tests count the work
 * that they make, the bench measures how long others wait meanwhile.
 */
import { createHash } from "node:crypto";
import type { Node } from "../src/protocol/codec.ts";
import type { DialectTable } from "../src/protocol/dialect-table.ts";
import { type Body, type OperationName, operations } from "../src/protocol/operations.ts";
import { Encoder, MOST_ENTRIES } from "../src/protocol/wire.ts";
import { MOST_ELEMENTS } from "../src/sandbox/request-bounds.ts";
import { encodeBase32 } from "../src/store/base32.ts";

/** One request, with its body. */
export interface Worst {
  readonly what: string;
  readonly bytes: Buffer;
  /** It has to take at least so many turns of the loop. */
  readonly turns: number;
}

export interface WorstOptions {
  readonly table: DialectTable;
  /** About how long each shall be. */
  readonly requestBytes: number;
  /** In the view of who asks. */
  readonly paths: readonly string[];
  /** In the view too: `manyOutputs` by its path. */
  readonly derivation: string;
}

/** Of the derivation that is asked for in all ways. */
const OUTPUTS = 3000;

/** All the worst requests for one operation. */
export function worstRequests(name: OperationName, options: WorstOptions): Worst[] {
  const { table } = options;
  const number = word(operations[name].number);
  const end = NO_BODY[table.byName[name].body];
  const byCodec = longest(operations[name].request.node, options).map((bytes, i) => ({
    what: `long in field ${i + 1}`,
    bytes: Buffer.concat([number, bytes, end]),
    turns: 0,
  }));
  const own = worst[name](options).map(({ what, bytes, turns = 0 }) => ({
    what,
    bytes: Buffer.concat([number, bytes]),
    turns,
  }));
  return [...byCodec, ...own];
}

/** The text of `many.drv`, a derivation with thousands of outputs that a daemon takes for right. */
export function manyOutputs(): Buffer {
  const names = Array.from({ length: OUTPUTS }, (_, i) => outputName(i));
  const written = (pathOf: (name: string) => string): Buffer =>
    aterm(
      names.map((name) => `("${name}","${pathOf(name)}","","")`).join(),
      "",
      names.map((name) => `("${name}","${pathOf(name)}")`).join(),
    );
  const masked = createHash("sha256")
    .update(written(() => ""))
    .digest("hex");
  return written((name) => madePath(`output:${name}`, masked, `many-${name}`));
}

/** As Nix makes the paths of outputs (`makeStorePath` in src/libstore/store-dir-config.cc). */
function madePath(type: string, hash: string, name: string): string {
  const digest = createHash("sha256").update(`${type}:sha256:${hash}:/nix/store:${name}`).digest();
  const folded = Buffer.alloc(20);
  for (const [i, byte] of digest.entries()) folded[i % folded.length]! ^= byte;
  return `/nix/store/${encodeBase32(folded)}-${name}`;
}

/** A store path that nothing has. */
export function numberedPath(number: number, name: string): string {
  return `/nix/store/${String(number).padStart(32, "0")}-${name}`;
}

function word(value: number): Buffer {
  const encoder = new Encoder();
  encoder.u64(value);
  return encoder.finish();
}

function text(value: string): Buffer {
  const encoder = new Encoder();
  encoder.string(value);
  return encoder.finish();
}

const NO_BODY: Readonly<Record<Body, Buffer>> = {
  framed: word(0),
  nar: Buffer.concat(["nix-archive-1", "(", "type", "symlink", "target", "x", ")"].map(text)),
  pulled: Buffer.alloc(0),
  none: Buffer.alloc(0),
};

interface Own {
  readonly what: string;
  /** Without the operation's number. */
  readonly bytes: Buffer;
  readonly turns?: number;
}

const nothingWorse = (): Own[] => [];

const manyWays = ({ derivation, requestBytes }: WorstOptions): Own => ({
  what: "one derivation, in all ways",
  bytes: targets(derivation, Math.min(20_000, Math.floor(requestBytes / 128))),
});
const buildManyWays = ({ derivation }: WorstOptions): Own[] => [
  { what: "one derivation, in all ways", bytes: Buffer.concat([targets(derivation, 10_000), word(0)]) },
];
const ofDerivation = ({ derivation }: WorstOptions): Own[] => [
  { what: "of many outputs", bytes: text(derivation) },
];

/**
 * Each operation has a row, which a new one has to be given: what is worse than what its codec alone tells. That is long in
 * every field that can be long, and is made for each without a word here.
 */
const worst: { readonly [N in OperationName]: (options: WorstOptions) => readonly Own[] } = {
  IsValidPath: nothingWorse,
  HasSubstitutes: nothingWorse,
  QueryPathHash: nothingWorse,
  QueryReferences: ({ paths }) => [{ what: "of a path in the view", bytes: text(paths[1]!) }],
  QueryReferrers: ({ paths }) => [{ what: "of a path in the view", bytes: text(paths[0]!) }],
  AddToStore: ({ table, requestBytes }) => {
    // Before 1.25 derivations come by AddTextToStore.
    if (table.minor < 25) return [];
    return [
      {
        what: "a derivation of millions of values",
        bytes: added(withJson("{},", requestBytes / 2)),
        turns: requestBytes / (64 * 1024),
      },
      {
        what: "a derivation of nothing but escapes",
        bytes: added(withArgument("\\\\", requestBytes / 2)),
        turns: requestBytes / (256 * 1024),
      },
      { what: "a derivation of many outputs", bytes: added(manyOutputs()) },
      { what: "a derivation in frames of one byte", bytes: added(withArgument("x", requestBytes / 16), 1) },
    ];
  },
  AddTextToStore: ({ requestBytes }) => [
    {
      what: "a derivation of millions of values",
      bytes: Buffer.concat([
        text("x.drv"),
        text(withJson("{},", requestBytes / 2).toString("latin1")),
        word(0),
      ]),
      turns: requestBytes / (64 * 1024),
    },
  ],
  BuildPaths: buildManyWays,
  EnsurePath: nothingWorse,
  AddTempRoot: nothingWorse,
  AddIndirectRoot: nothingWorse,
  SyncWithGC: nothingWorse,
  FindRoots: nothingWorse,
  ExportPath: nothingWorse,
  QueryDeriver: nothingWorse,
  SetOptions: nothingWorse,
  CollectGarbage: nothingWorse,
  QuerySubstitutablePathInfo: nothingWorse,
  QueryDerivationOutputs: ofDerivation,
  QueryAllValidPaths: nothingWorse,
  QueryFailedPaths: nothingWorse,
  ClearFailedPaths: nothingWorse,
  QueryPathInfo: ({ paths }) => [{ what: "of a path in the view", bytes: text(paths[1]!) }],
  ImportPaths: nothingWorse,
  QueryDerivationOutputNames: ofDerivation,
  QueryPathFromHashPart: nothingWorse,
  QuerySubstitutablePathInfos: nothingWorse,
  QueryValidPaths: nothingWorse,
  QuerySubstitutablePaths: nothingWorse,
  QueryValidDerivers: ({ paths }) => [{ what: "of a path in the view", bytes: text(paths[0]!) }],
  OptimiseStore: nothingWorse,
  VerifyStore: nothingWorse,
  BuildDerivation: nothingWorse,
  AddSignatures: nothingWorse,
  NarFromPath: nothingWorse,
  AddToStoreNar: nothingWorse,
  QueryMissing: (options) => [manyWays(options)],
  QueryDerivationOutputMap: ofDerivation,
  RegisterDrvOutput: nothingWorse,
  QueryRealisation: nothingWorse,
  AddMultipleToStore: (options) => {
    const body = manyReferences(options);
    return [
      {
        what: "a path with references without end",
        bytes: Buffer.concat([word(0), word(0), frames(body, 64 * 1024)]),
      },
      {
        what: "frames of one byte",
        bytes: Buffer.concat([word(0), word(0), frames(body.subarray(0, body.length / 16), 1)]),
      },
    ];
  },
  AddBuildLog: nothingWorse,
  BuildPathsWithResults: buildManyWays,
  AddPermRoot: nothingWorse,
  QueryActiveBuilds: nothingWorse,
  AddTempRoots: nothingWorse,
  QueryPathInfos: ({ paths, requestBytes }) => {
    const count = Math.floor(requestBytes / 128);
    const again = Array<Buffer>(count).fill(text(paths[1]!));
    return [
      { what: "of one path in the view, again and again", bytes: Buffer.concat([word(count), ...again]) },
    ];
  },
  SubmitOutput: nothingWorse,
  AddToStoreScanning: nothingWorse,
};

function outputName(number: number): string {
  return `o${10_000 + (number % OUTPUTS)}`;
}

function aterm(outputs: string, args = "", env = ""): Buffer {
  return Buffer.from(`Derive([${outputs}],[],[],"s","/bin/sh",[${args}],[${env}])`, "latin1");
}

function withJson(value: string, size: number): Buffer {
  const values = value.repeat(size / value.length);
  return aterm('("out","","","")', "", `("__json","{\\"a\\":[${values}{}]}")`);
}

function withArgument(unit: string, size: number): Buffer {
  return aterm('("out","","","")', `"${unit.repeat(size / unit.length)}"`);
}

function added(contents: Buffer, frame = 64 * 1024): Buffer {
  return Buffer.concat([text("x.drv"), text("text:sha256"), word(0), word(0), frames(contents, frame)]);
}

/** A framed body. */
function frames(contents: Buffer, size: number): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; at < contents.length; at += size) {
    const piece = contents.subarray(at, at + size);
    parts.push(word(piece.length), piece);
  }
  return Buffer.concat([...parts, word(0)]);
}

/** So many targets, each with two outputs of the one derivation. */
function targets(derivation: string, number: number): Buffer {
  return Buffer.concat([
    word(number),
    ...Array.from({ length: number }, (_, i) => text(`${derivation}!${outputName(i)},${outputName(7 * i)}`)),
  ]);
}

/** The beginning of a body of AddMultipleToStore. */
function manyReferences({ paths, requestBytes }: WorstOptions): Buffer {
  const number = Math.floor(requestBytes / 128);
  return Buffer.concat([
    word(1),
    text(numberedPath(1, "y")),
    text(""),
    text("0".repeat(64)),
    word(number),
    ...Array.from({ length: number }, (_, i) => text(paths[i % paths.length]!)),
    ...[word(0), word(1), word(0), word(0)],
    text(`fixed:r:sha256:${"0".repeat(52)}`),
  ]);
}

/** For each place of a request that can be long, the longest that it takes. */
function longest(node: Node, options: WorstOptions): Buffer[] {
  const { table, requestBytes } = options;
  switch (node.kind) {
    case "string":
    case "bytes":
      return [text("x".repeat(requestBytes))];
    case "list":
      return [repeated(node.of, options), ...nested(node.of, options)];
    case "map":
      return [repeatedPairs(node.key, node.value, options)];
    case "optional":
      return longest(node.of, options).map((bytes) => Buffer.concat([word(1), bytes]));
    case "struct": {
      const shortest = node.fields.map(([, field]) => short(field, options, 0));
      const long = node.fields.flatMap(([, field], i) =>
        longest(field, options).map((bytes) => Buffer.concat(shortest.with(i, bytes))),
      );
      return long.length > 0 ? long : [Buffer.concat(shortest)];
    }
    case "variant":
      return node.cases.flatMap((one, tag) =>
        longest(one, options).map((bytes) => Buffer.concat([word(tag), bytes])),
      );
    case "since":
    case "feature":
      return longest(inForce(node, table), options);
    default:
      return [short(node, options, 0)];
  }
}

function nested(of: Node, options: WorstOptions): Buffer[] {
  return of.kind === "struct" || of.kind === "list"
    ? longest(of, options).map((bytes) => Buffer.concat([word(1), bytes]))
    : [];
}

/** As many elements as a list may have. */
function repeated(of: Node, options: WorstOptions): Buffer {
  const number = Math.min(MOST_ELEMENTS, fitting(options, of));
  return Buffer.concat([word(number), ...Array.from({ length: number }, (_, i) => short(of, options, i))]);
}

function repeatedPairs(key: Node, value: Node, options: WorstOptions): Buffer {
  const distinct = key.kind === "storePath" ? options.paths.length : MOST_ENTRIES;
  const number = Math.min(distinct, fitting(options, key, value));
  return Buffer.concat([
    word(number),
    ...Array.from({ length: number }, (_, i) => [short(key, options, i), short(value, options, i)]).flat(),
  ]);
}

function fitting(options: WorstOptions, ...nodes: readonly Node[]): number {
  const each = nodes.reduce((sum, node) => sum + short(node, options, 0).length, 0);
  return Math.floor(options.requestBytes / each);
}

/** Something short. */
function short(node: Node, options: WorstOptions, number: number): Buffer {
  const { table, paths } = options;
  switch (node.kind) {
    case "string":
    case "bytes":
      return text(number.toString(36));
    case "storePath":
      return text(paths[number % paths.length]!);
    case "struct":
      return Buffer.concat(node.fields.map(([, field]) => short(field, options, number)));
    case "variant":
      return Buffer.concat([word(0), short(node.cases[0]!, options, number)]);
    case "since":
    case "feature":
      return short(inForce(node, table), options, number);
    case "nothing":
      return Buffer.alloc(0);
    default:
      return word(0);
  }
}

function inForce(node: Node & { kind: "since" | "feature" }, table: DialectTable): Node {
  if (node.kind === "feature") return table.features.has(node.feature) ? node.with : node.without;
  return table.minor >= node.minor ? node.value : (node.before ?? { kind: "nothing" });
}
