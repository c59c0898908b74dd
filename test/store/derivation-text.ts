/** Derivations with all that their texts say: written as Nix writes them, and read without the parser under test. */

import { createHash } from "node:crypto";
import { contentAddressPath } from "../../src/store/content-address.ts";
import type { Derivation, DerivationOutput } from "../../src/store/derivation.ts";
import { DerivationAttributes, isAttributeName } from "../../src/store/derivation-attributes.ts";
import { atOnce } from "../../src/store/slices.ts";
import { type StorePath, storePathBase } from "../../src/store/store-path.ts";

export interface DerivationText extends Omit<Derivation, "attributes"> {
  readonly args: string[];
  readonly env: Map<string, string>;
}

/** The attributes of an environment whose strings hold bytes. */
export function attributesOf(env: Iterable<readonly [string, string]>): DerivationAttributes {
  const variables = [...env].filter(([name]) => isAttributeName(name));
  return atOnce(
    DerivationAttributes.of(
      new Map(variables.map(([name, value]) => [name, Buffer.from(value, "latin1")] as const)),
    ),
  );
}

/** What is read of it. */
export function withAttributes({ args: _, env, ...rest }: DerivationText): Derivation {
  return { ...rest, attributes: attributesOf(env) };
}

/** Writes a derivation, in the order that Nix writes it. */
export function unparseDerivation(derivation: DerivationText): Buffer {
  const outputs = inOrder([...derivation.outputs], keyOf).map(([name, { path, hashAlgorithm, hash }]) =>
    tuple([name, path, hashAlgorithm, hash]),
  );
  const inputDrvs = inOrder([...derivation.inputDrvs], ([path]) => storePathBase(path)).map(
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

/**
 * The store path of a derivation: that of its text, with all its inputs as references.
 * @param name the derivation's name, without `.drv`.
 */
export function derivationPath(storeDir: string, name: string, derivation: DerivationText): StorePath {
  const digest = createHash("sha256").update(unparseDerivation(derivation)).digest();
  const references = [...derivation.inputSrcs, ...derivation.inputDrvs.keys()];
  return contentAddressPath(
    storeDir,
    `${name}.drv`,
    { method: "text", hash: { algorithm: "sha256", digest } },
    references,
  );
}

type Term = string | readonly Term[];

/** Reads a derivation, whatever its order and whatever stands in it. */
export function readDerivationText(bytes: Buffer): DerivationText {
  const text = bytes.toString("latin1");
  let at = "Derive".length;
  const term = (): Term => {
    const opening = text[at++];
    if (opening !== '"') {
      const terms: Term[] = [];
      while (!")]".includes(text[at]!)) {
        terms.push(term());
        if (text[at] === ",") at++;
      }
      at++;
      return terms;
    }
    const start = at;
    while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    return text
      .slice(start, at++)
      .replace(/\\(.)/gs, (_, letter: string) => ({ n: "\n", r: "\r", t: "\t" })[letter] ?? letter);
  };
  const [outputs, inputDrvs, inputSrcs, system, builder, args, env] = term() as [
    [string, string, string, string][],
    [string, string[]][],
    string[],
    string,
    string,
    string[],
    [string, string][],
  ];
  const entry = ([name, path, hashAlgorithm, hash]: (typeof outputs)[0]): [string, DerivationOutput] => [
    name,
    { path, hashAlgorithm, hash },
  ];
  return {
    outputs: new Map(outputs.map(entry)),
    inputDrvs: new Map(inputDrvs),
    inputSrcs,
    system,
    builder,
    args,
    env: new Map(env),
  };
}

/** Writes a string. */
function atermString(value: string): string {
  const letters: Readonly<Record<string, string>> = { "\n": "n", "\r": "r", "\t": "t" };
  return `"${value.replace(/["\\\n\r\t]/g, (character) => `\\${letters[character] ?? character}`)}"`;
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
