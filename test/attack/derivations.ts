/**
 * Derivations made by hand, with the output paths that Nix expects of them, so that a raw client can add what no
 * evaluator would write. Formulas: src/libstore/derivations.cc (hashDerivationModulo) in the Nix tree.
 */
import { createHash } from "node:crypto";
import { nixSystem } from "../../lab/expression.ts";
import { type RawClient, STORE_DIR } from "../../lab/raw-client.ts";
import { encodeBase32 } from "../../src/store/base32.ts";
import { contentAddressPath } from "../../src/store/content-address.ts";
import { fixedOutputAddress } from "../../src/store/derivation.ts";
import type { StorePath } from "../../src/store/store-path.ts";
import { type DerivationText, unparseDerivation } from "../store/derivation-text.ts";

export interface Recipe {
  readonly name: string;
  /** Run by /bin/sh with coreutils in its PATH. */
  readonly script: string;
  readonly inputSrcs?: readonly StorePath[];
  readonly inputs?: readonly Made[];
  readonly env?: Readonly<Record<string, string>>;
  /** Default /bin/sh. */
  readonly builder?: string;
  /** A fixed output: SHA-256 of the file, base 16. */
  readonly sha256?: string;
}

/** A derivation that can be added. */
export interface Made {
  /** The name of the file: `…​.drv`. */
  readonly name: string;
  readonly text: Buffer;
  readonly references: readonly StorePath[];
  readonly path: StorePath;
  /** Where its one output will be. */
  readonly out: StorePath;
  /** As what it counts in derivations that have it as an input, base 16. */
  readonly hashModulo: string;
}

export function makeDerivation(recipe: Recipe): Made {
  const { name, inputs = [], inputSrcs = [], builder = "/bin/sh", sha256 } = recipe;
  const output = { path: "", hashAlgorithm: sha256 === undefined ? "" : "sha256", hash: sha256 ?? "" };
  const env = new Map([
    ["PATH", "/usr/bin:/bin"],
    ["builder", builder],
    ["name", name],
    ["out", ""],
    ["system", nixSystem],
    ...(sha256 === undefined
      ? []
      : ([
          ["outputHash", sha256],
          ["outputHashAlgo", "sha256"],
          ["outputHashMode", "flat"],
        ] as [string, string][])),
    ...Object.entries(recipe.env ?? {}),
  ]);
  const derivation = (out: string, inputKeys: readonly string[]): DerivationText => ({
    outputs: new Map([["out", { ...output, path: out }]]),
    inputDrvs: new Map(inputKeys.map((key) => [key, ["out"]])),
    inputSrcs: [...inputSrcs].sort(),
    system: nixSystem,
    builder,
    args: ["-c", `${recipe.script}\n:`],
    env: new Map([...env].map(([key, value]) => [key, key === "out" ? out : value])),
  });
  const masked = (out: string) =>
    hexSha256(
      unparseDerivation(
        derivation(
          out,
          inputs.map((input) => input.hashModulo),
        ),
      ),
    );
  const address = fixedOutputAddress(output);
  const out = address ? contentAddressPath(STORE_DIR, name, address, []) : outputPath(masked(""), name);
  const text = unparseDerivation(
    derivation(
      out,
      inputs.map((input) => input.path),
    ),
  );
  const references = [...inputSrcs, ...inputs.map((input) => input.path)];
  const hash = { algorithm: "sha256", digest: createHash("sha256").update(text).digest() } as const;
  return {
    name: `${name}.drv`,
    text,
    references,
    path: contentAddressPath(STORE_DIR, `${name}.drv`, { method: "text", hash }, references),
    out,
    hashModulo: address ? hexSha256(Buffer.from(`fixed:out:sha256:${sha256}:${out}`)) : masked(out),
  };
}

/** Adds a derivation, with the references that it should have unless others are given. @throws Error */
export async function addDerivation(
  client: RawClient,
  made: Made,
  references: readonly StorePath[] = made.references,
): Promise<StorePath> {
  const { path, error } = await client.addText(made.name, made.text, references);
  if (error !== undefined) throw new Error(error);
  return path;
}

/** Adds and builds. @returns the output's path. @throws Error with the peer's text */
export async function buildOutput(client: RawClient, recipe: Recipe): Promise<StorePath> {
  const made = makeDerivation(recipe);
  const path = await addDerivation(client, made);
  const { error } = await client.build(`${path}!out`);
  if (error !== undefined) throw new Error(error);
  return made.out;
}

function outputPath(hash: string, name: string): StorePath {
  const digest = createHash("sha256").update(`output:out:sha256:${hash}:${STORE_DIR}:${name}`).digest();
  const folded = Buffer.alloc(20);
  for (const [i, byte] of digest.entries()) folded[i % 20]! ^= byte;
  return `${STORE_DIR}/${encodeBase32(folded)}-${name}`;
}

function hexSha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}
