/**
 * Derivations, read from and written to their `.drv` form.
 * Format: `src/libstore/derivation/aterm.cc` in the Nix tree (`derivations.cc` up to 2.34), the form `Derive(…)`.
 */

import { createHash } from "node:crypto";
import { AtermError, AtermReader, atermString } from "./aterm.ts";
import {
  type ContentAddress,
  ContentAddressError,
  contentAddressPath,
  parseOutputHashAlgorithm,
} from "./content-address.ts";
import { digestLength } from "./hash.ts";
import { quote } from "./quote.ts";
import { isStoreBase, isStoreName, type StorePath, storePathBase } from "./store-path.ts";

/** One output of a derivation: the three strings of the ATerm, "" where absent. */
export interface DerivationOutput {
  /** The store path, where it is known before the build. */
  readonly path: string;
  /** The method prefix and the algorithm, such as `r:sha256`, of content-addressed outputs. */
  readonly hashAlgorithm: string;
  /** The digest in base 16 of a fixed output; `impure` of an impure one. */
  readonly hash: string;
}

/** A derivation, as its ATerm says it. Strings hold bytes, one a character (latin1). */
export interface Derivation {
  readonly outputs: Map<string, DerivationOutput>;
  /** Input derivations, and which of their outputs are wanted. */
  readonly inputDrvs: Map<StorePath, string[]>;
  readonly inputSrcs: StorePath[];
  readonly system: string;
  readonly builder: string;
  readonly args: string[];
  readonly env: Map<string, string>;
}

/**
 * How the path of an output comes about. `input-addressed`: from the derivation; `fixed`: from the hash that the
 * derivation names; `floating`: from the contents, once built; `deferred`: from the derivation, once its own
 * floating inputs are built; `impure`: as floating, and never the same again.
 */
export type OutputKind = "input-addressed" | "fixed" | "floating" | "deferred" | "impure";

/** A text that is not a derivation in canonical form. */
export class DerivationError extends Error {
  override readonly name = "DerivationError";
}

/**
 * Reads a derivation. Only the form that Nix itself writes is taken: maps and sets in order without duplicates, one
 * spelling of each string and hash, at least one output. So `unparseDerivation` gives the same bytes again.
 * @throws DerivationError also for `DrvWithVersion("xp-dyn-drv", …)` (dynamic derivations).
 */
export function parseDerivation(text: Buffer): Derivation {
  try {
    return readDerivation(new AtermReader(text));
  } catch (error) {
    if (!(error instanceof AtermError)) throw error;
    throw new DerivationError(`This is not a derivation in canonical form. ${error.message}`, {
      cause: error,
    });
  }
}

/** Writes a derivation, in the order that Nix writes it. */
export function unparseDerivation(derivation: Derivation): Buffer {
  const outputs = inOrder([...derivation.outputs], keyOf).map(([name, { path, hashAlgorithm, hash }]) =>
    tuple([name, path, hashAlgorithm, hash]),
  );
  const inputDrvs = inOrder([...derivation.inputDrvs], pathOrder).map(
    ([path, names]) => `(${atermString(path)},${list(inOrder(names, asIs))})`,
  );
  const env = inOrder([...derivation.env], keyOf).map(tuple);
  const fields = [
    `[${outputs.join()}]`,
    `[${inputDrvs.join()}]`,
    list(inOrder(derivation.inputSrcs, storePathBase)),
    atermString(derivation.system),
    atermString(derivation.builder),
    list(derivation.args),
    `[${env.join()}]`,
  ];
  return Buffer.from(`Derive(${fields.join()})`, "latin1");
}

/** How the path of that output comes about. */
export function outputKind(output: DerivationOutput): OutputKind {
  if (output.hashAlgorithm === "") return output.path === "" ? "deferred" : "input-addressed";
  if (output.hash === "") return "floating";
  return output.hash === "impure" ? "impure" : "fixed";
}

/** The content address that a fixed output must have; undefined for outputs of another kind. */
export function fixedOutputAddress(output: DerivationOutput): ContentAddress | undefined {
  if (outputKind(output) !== "fixed") return undefined;
  const { method, algorithm } = parseOutputHashAlgorithm(output.hashAlgorithm);
  return { method, hash: { algorithm, digest: Buffer.from(output.hash, "hex") } };
}

/** The name part of an output's store path; `derivationName` is without `.drv`. */
export function outputPathName(derivationName: string, outputName: string): string {
  return outputName === "out" ? derivationName : `${derivationName}-${outputName}`;
}

/**
 * The store path of a derivation: that of its text, with all its inputs as references.
 * @param name the derivation's name, without `.drv`.
 * @throws StorePathError if a store path cannot have the name.
 */
export function derivationPath(storeDir: string, name: string, derivation: Derivation): StorePath {
  const digest = createHash("sha256").update(unparseDerivation(derivation)).digest();
  const references = [...derivation.inputSrcs, ...derivation.inputDrvs.keys()];
  return contentAddressPath(
    storeDir,
    `${name}.drv`,
    { method: "text", hash: { algorithm: "sha256", digest } },
    references,
  );
}

function readDerivation(reader: AtermReader): Derivation {
  if (reader.skip("DrvWithVersion("))
    throw reader.error("dynamic derivations (the form DrvWithVersion) are not supported");
  reader.expect("Derive(");
  const outputs = readOutputs(reader);
  reader.expect(",");
  const inputDrvs = readInputDerivations(reader);
  reader.expect(",");
  const inputSrcs = readOrdered(reader, "input source", storePathBase, () => readStorePath(reader));
  reader.expect(",");
  const system = reader.plainString();
  reader.expect(",");
  const builder = reader.string();
  reader.expect(",");
  const args: string[] = [];
  reader.list(() => args.push(reader.string()));
  reader.expect(",");
  const env = readEnvironment(reader);
  reader.expect(")");
  reader.end();
  return { outputs, inputDrvs, inputSrcs, system, builder, args, env };
}

function readOutputs(reader: AtermReader): Map<string, DerivationOutput> {
  const outputs = readOrdered(reader, "output", keyOf, (): [string, DerivationOutput] => {
    reader.expect("(");
    const name = reader.plainString();
    if (!isStoreName(name)) throw reader.error(`an output cannot have the name ${quote(name)}`);
    reader.expect(",");
    const path = reader.plainString();
    reader.expect(",");
    const hashAlgorithm = reader.plainString();
    reader.expect(",");
    const hash = reader.plainString();
    reader.expect(")");
    const output = { path, hashAlgorithm, hash };
    checkOutput(reader, name, output);
    return [name, output];
  });
  if (outputs.length === 0) throw reader.error("a derivation must have an output");
  return new Map(outputs);
}

function checkOutput(reader: AtermReader, name: string, output: DerivationOutput): void {
  const { path, hashAlgorithm, hash } = output;
  if (path !== "" && !looksLikeStorePath(path))
    throw reader.error(`the path of the output ${quote(name)} is not a store path`);
  if (hashAlgorithm === "") {
    if (hash !== "") throw reader.error(`the output ${quote(name)} has a hash and no algorithm`);
    return;
  }
  const { algorithm } = readHashAlgorithm(reader, hashAlgorithm);
  const fixed = outputKind(output) === "fixed";
  if (fixed && (hash.length !== 2 * digestLength(algorithm) || !/^[0-9a-f]*$/.test(hash)))
    throw reader.error(`the hash of the output ${quote(name)} is not a ${algorithm} digest in base 16`);
  if (fixed !== (path !== ""))
    throw reader.error(
      `the output ${quote(name)} is ${outputKind(output)} and must ${fixed ? "" : "not "}have a path`,
    );
}

function readHashAlgorithm(reader: AtermReader, text: string): ReturnType<typeof parseOutputHashAlgorithm> {
  try {
    return parseOutputHashAlgorithm(text);
  } catch (error) {
    if (!(error instanceof ContentAddressError)) throw error;
    throw reader.error(error.message);
  }
}

function readInputDerivations(reader: AtermReader): Map<StorePath, string[]> {
  const inputs = readOrdered(reader, "input derivation", pathOrder, (): [StorePath, string[]] => {
    reader.expect("(");
    const path = readStorePath(reader);
    reader.expect(",");
    const names = readOrdered(reader, "output name", asIs, () => reader.plainString());
    reader.expect(")");
    if (names.length === 0) throw reader.error(`of the input derivation ${quote(path)} no output is wanted`);
    return [path, names];
  });
  return new Map(inputs);
}

function readEnvironment(reader: AtermReader): Map<string, string> {
  const variables = readOrdered(reader, "environment variable", keyOf, (): [string, string] => {
    reader.expect("(");
    const name = reader.string();
    reader.expect(",");
    const value = reader.string();
    reader.expect(")");
    return [name, value];
  });
  return new Map(variables);
}

/** Reads a list whose items Nix keeps in a set or map: each must come after the one before it. */
function readOrdered<T>(reader: AtermReader, what: string, orderOf: (item: T) => string, read: () => T): T[] {
  const items: T[] = [];
  let previous: string | undefined;
  reader.list(() => {
    const item = read();
    const order = orderOf(item);
    if (previous !== undefined && order <= previous)
      throw reader.error(
        order === previous
          ? `the ${what} ${quote(order)} is there twice`
          : `the ${what} ${quote(order)} is out of order`,
      );
    previous = order;
    items.push(item);
  });
  return items;
}

function readStorePath(reader: AtermReader): StorePath {
  const path = reader.plainString();
  if (!looksLikeStorePath(path)) throw reader.error(`${quote(path)} is not a store path`);
  return path;
}

/** The store folder is not known here: whoever uses a path compares it whole. */
function looksLikeStorePath(path: string): boolean {
  return path.startsWith("/") && isStoreBase(storePathBase(path));
}

function list(items: readonly string[]): string {
  return `[${items.map(atermString).join()}]`;
}

function tuple(items: readonly string[]): string {
  return `(${items.map(atermString).join()})`;
}

/** Nix orders by bytes; strings here hold one byte a character, so comparing them is the same. */
function inOrder<T>(items: readonly T[], orderOf: (item: T) => string): T[] {
  return items
    .map((item) => ({ item, order: orderOf(item) }))
    .sort((a, b) => (a.order < b.order ? -1 : a.order > b.order ? 1 : 0))
    .map(({ item }) => item);
}

function asIs(text: string): string {
  return text;
}

function keyOf<T>([key]: readonly [string, T]): string {
  return key;
}

function pathOrder<T>([path]: readonly [StorePath, T]): string {
  return storePathBase(path);
}
