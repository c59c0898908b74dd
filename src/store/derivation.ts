/**
 * Derivations, read from and written to their `.drv` form.
 * Format: `src/libstore/derivation/aterm.cc` in the Nix tree (`derivations.cc` up to 2.34), the form `Derive(…)`.
 */

import { AtermError, AtermReader, lengthOf, type Span } from "./aterm.ts";
import { type ContentAddress, ContentAddressError, parseOutputHashAlgorithm } from "./content-address.ts";
import { DerivationAttributes, isAttributeName, LONGEST_ATTRIBUTE } from "./derivation-attributes.ts";
import { DerivationError } from "./derivation-error.ts";
import { digestLength } from "./hash.ts";
import { quote } from "./quote.ts";
import { atOnce, type Slices } from "./slices.ts";
import { isStoreBase, isStoreName, type StorePath, storePathBase } from "./store-path.ts";

export { DerivationError } from "./derivation-error.ts";

/** One output of a derivation: the three strings of the ATerm, "" where absent. */
export interface DerivationOutput {
  /** The store path, where it is known before the build. */
  readonly path: string;
  /** The method prefix and the algorithm, such as `r:sha256`, of content-addressed outputs. */
  readonly hashAlgorithm: string;
  /** The digest in base 16 of a fixed output; `impure` of an impure one. */
  readonly hash: string;
}

/**
 * A derivation, as its ATerm says it, without what only its builder reads: of arguments and environment the attributes are
 * left. Strings hold bytes, one a character (latin1).
 */
export interface Derivation {
  readonly outputs: Map<string, DerivationOutput>;
  /** Input derivations, and which of their outputs are wanted. */
  readonly inputDrvs: Map<StorePath, string[]>;
  readonly inputSrcs: StorePath[];
  readonly system: string;
  readonly builder: string;
  readonly attributes: DerivationAttributes;
}

/**
 * How the path of an output is determined. `input-addressed`: from the derivation; `fixed`: from the hash
 * that the derivation names; `floating`: from the contents, once built; `deferred`: from the derivation, once
 * its own floating inputs are built; `impure`: like floating, and different every time.
 */
export type OutputKind = "input-addressed" | "fixed" | "floating" | "deferred" | "impure";

/** Longer texts cannot be passed to a builder. Bytes. */
const LONGEST_BUILDER = 4096;
const LONGEST_VARIABLE_NAME = 128 * 1024;

/**
 * Reads a derivation. Only the form that Nix itself writes is accepted: maps and sets in order without
 * duplicates, one spelling of each string and hash, at least one output. This way no two readers can
 * interpret it differently. Attributes that cannot be read are an error only for callers that ask for one.
 * @throws DerivationError also for `DrvWithVersion("xp-dyn-drv", …)` (dynamic derivations), and for what is too long.
 */
export function parseDerivation(text: Buffer): Derivation {
  return atOnce(derivationOf(text));
}

/** As `parseDerivation`. */
export function* derivationOf(text: Buffer): Slices<Derivation> {
  try {
    return yield* readDerivation(new AtermReader(text));
  } catch (error) {
    if (!(error instanceof AtermError)) throw error;
    throw new DerivationError(`This is not a derivation in canonical form. ${error.message}`, {
      cause: error,
    });
  }
}

/**
 * The values of variables of a derivation's environment, which means nothing to Nix.
 * @throws DerivationError as `parseDerivation`
 */
export function* variablesOf(text: Buffer, names: ReadonlySet<string>): Slices<Map<string, string>> {
  const found = new Map<string, string>();
  try {
    yield* readDerivation(new AtermReader(text), { names, found });
  } catch (error) {
    throw error instanceof AtermError ? new DerivationError(error.message, { cause: error }) : error;
  }
  return found;
}

/** Variables that are wanted besides attributes. */
interface Wanted {
  readonly names: ReadonlySet<string>;
  readonly found: Map<string, string>;
}

/** What one entry of a map, with a short string or two, takes besides its characters. Bytes. */
const ENTRY = 120;

/** About how many bytes of memory a parsed derivation takes. */
export function sizeOf({ outputs, inputDrvs, inputSrcs, builder, attributes }: Derivation): number {
  let size = 1024 + builder.length + attributes.size;
  for (const [name, { path, hash, hashAlgorithm }] of outputs)
    size += 2 * ENTRY + name.length + path.length + hash.length + hashAlgorithm.length;
  for (const [path, names] of inputDrvs)
    size += ENTRY + path.length + names.reduce((sum, name) => sum + 32 + name.length, 0);
  for (const path of inputSrcs) size += 32 + path.length;
  return size;
}

/** How the path of that output is determined. */
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

function* readDerivation(reader: AtermReader, wanted?: Wanted): Slices<Derivation> {
  yield* reader.refuseControlCharacters();
  if (reader.skip("DrvWithVersion("))
    throw reader.error("dynamic derivations (the form DrvWithVersion) are not supported");
  reader.expect("Derive(");
  const outputs = yield* readOutputs(reader);
  reader.expect(",");
  const inputDrvs = yield* readInputDerivations(reader);
  reader.expect(",");
  const inputSrcs = yield* readInputSources(reader);
  reader.expect(",");
  const system = yield* reader.piece(() => reader.plainString());
  reader.expect(",");
  const builder = yield* reader.piece(() => reader.string(LONGEST_BUILDER));
  reader.expect(",");
  yield* reader.list(() => {
    reader.span();
    return undefined;
  });
  reader.expect(",");
  const attributes = yield* readAttributes(reader, wanted);
  reader.expect(")");
  reader.end();
  return { outputs, inputDrvs, inputSrcs, system, builder, attributes };
}

function* readOutputs(reader: AtermReader): Slices<Map<string, DerivationOutput>> {
  const outputs = new Map<string, DerivationOutput>();
  const inOrder = ascending(reader, "output");
  yield* reader.list(() => {
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
    outputs.set(name, output);
    inOrder(name);
    return undefined;
  });
  if (outputs.size === 0) throw reader.error("a derivation must have an output");
  return outputs;
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

function* readInputDerivations(reader: AtermReader): Slices<Map<StorePath, string[]>> {
  const inputs = new Map<StorePath, string[]>();
  const inOrder = ascending(reader, "input derivation");
  yield* reader.list(() => {
    reader.expect("(");
    const path = readStorePath(reader);
    reader.expect(",");
    return readWanted(path);
  });
  return inputs;

  function* readWanted(path: StorePath): Slices<void> {
    const names: string[] = [];
    const namesInOrder = ascending(reader, "output name");
    yield* reader.list(() => {
      const name = reader.plainString();
      names.push(name);
      namesInOrder(name);
      return undefined;
    });
    reader.expect(")");
    if (names.length === 0) throw reader.error(`of the input derivation ${quote(path)} no output is wanted`);
    inputs.set(path, names);
    inOrder(storePathBase(path));
  }
}

function* readInputSources(reader: AtermReader): Slices<StorePath[]> {
  const inputs: StorePath[] = [];
  const inOrder = ascending(reader, "input source");
  yield* reader.list(() => {
    const path = readStorePath(reader);
    inputs.push(path);
    inOrder(storePathBase(path));
    return undefined;
  });
  return inputs;
}

/** Reads the environment, and keeps the variables that mean something to Nix. */
function* readAttributes(reader: AtermReader, wanted?: Wanted): Slices<DerivationAttributes> {
  const variables = new Map<string, Buffer>();
  let tooLong: string | undefined;
  const inOrder = ascending(reader, "environment variable");
  yield* reader.list(() => {
    reader.expect("(");
    const name = reader.string(LONGEST_VARIABLE_NAME);
    reader.expect(",");
    const span = reader.span();
    reader.expect(")");
    inOrder(name);
    const isWanted = wanted?.names.has(name) && lengthOf(span) <= LONGEST_ATTRIBUTE;
    if (isWanted) return readWanted(name, span);
    if (!isAttributeName(name)) return undefined;
    if (name === "__json" || lengthOf(span) <= LONGEST_ATTRIBUTE) return readVariable(name, span);
    tooLong = name;
    return undefined;
  });
  return yield* DerivationAttributes.of(variables, tooLong);

  function* readWanted(name: string, span: Span): Slices<void> {
    wanted?.found.set(name, (yield* reader.bytesOf(span)).toString("latin1"));
  }
  function* readVariable(name: string, span: Span): Slices<void> {
    variables.set(name, yield* reader.bytesOf(span));
  }
}

/** For items that Nix keeps in a set or map: what it orders each by must come after that of the one before. */
function ascending(reader: AtermReader, what: string): (order: string) => void {
  let previous: string | undefined;
  return (order) => {
    if (previous !== undefined && order <= previous)
      throw reader.error(
        order === previous
          ? `the ${what} ${quote(order)} is there twice`
          : `the ${what} ${quote(order)} is out of order`,
      );
    previous = order;
  };
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
