/**
 * The reference checks that a derivation asks for, repeated for what Nix could not know when it made them:
 * the references that were registered afterwards. Rules: src/libstore/build/derivation-check.cc and
 * derivation-options.cc in the Nix tree. Pure.
 */

import type { Derivation } from "../store/derivation.ts";
import type { AttributeName, DerivationAttributes } from "../store/derivation-attributes.ts";
import { isStorePath, type StorePath } from "../store/store-path.ts";
import type { JsonValue } from "../store/structured-attributes.ts";

/** An output after its references were registered. */
export interface CheckedOutput {
  readonly name: string;
  readonly path: StorePath;
  /** What it gained. */
  readonly added: readonly StorePath[];
  /** Everything it reaches, itself included. */
  readonly closure: ReadonlySet<StorePath>;
  /** Bytes of all NARs of the closure. */
  readonly closureSize: number;
}

interface Checks {
  readonly allowedReferences: readonly string[] | undefined;
  readonly disallowedReferences: readonly string[];
  readonly allowedRequisites: readonly string[] | undefined;
  readonly disallowedRequisites: readonly string[];
  readonly maxClosureSize: number | undefined;
}

/** @returns one line for each violation. @throws DerivationError when the attributes cannot be read. */
export function referenceViolations(
  derivation: Derivation,
  outputs: readonly CheckedOutput[],
  storeDir: string,
): string[] {
  const { attributes } = derivation;
  const pathOf = (item: string): string =>
    isStorePath(item, storeDir) ? item : (outputs.find(({ name }) => name === item)?.path ?? "");
  return outputs.flatMap((output) => {
    const checks = checksOf(attributes, output.name);
    // Nix itself has checked the references that it found; within the closure only the output itself is always allowed.
    const requisites = [...output.closure].filter((path) => path !== output.path);
    const forbidden = new Set([
      ...outside(output.added, checks.allowedReferences?.map(pathOf)),
      ...within(output.added, checks.disallowedReferences.map(pathOf)),
      ...outside(requisites, checks.allowedRequisites?.map(pathOf)),
      ...within(requisites, checks.disallowedRequisites.map(pathOf)),
    ]);
    const violations = [...forbidden].map(
      (path) =>
        `output '${output.path}' is not allowed to refer to '${path}', which was built inside its build`,
    );
    if (checks.maxClosureSize !== undefined && output.closureSize > checks.maxClosureSize)
      violations.push(
        `closure of output '${output.path}' is too large at ${output.closureSize} bytes; limit is ${checks.maxClosureSize} bytes`,
      );
    return violations;
  });
}

function checksOf(attributes: DerivationAttributes, output: string): Checks {
  if (!attributes.isStructured) {
    const listed = (name: AttributeName) => (attributes.has(name) ? attributes.list(name) : undefined);
    return {
      allowedReferences: listed("allowedReferences"),
      disallowedReferences: listed("disallowedReferences") ?? [],
      allowedRequisites: listed("allowedRequisites"),
      disallowedRequisites: listed("disallowedRequisites") ?? [],
      maxClosureSize: undefined,
    };
  }
  const checks = member(attributes.structured("outputChecks"), output);
  const size = member(checks, "maxClosureSize");
  return {
    allowedReferences: texts(member(checks, "allowedReferences")),
    disallowedReferences: texts(member(checks, "disallowedReferences")) ?? [],
    allowedRequisites: texts(member(checks, "allowedRequisites")),
    disallowedRequisites: texts(member(checks, "disallowedRequisites")) ?? [],
    maxClosureSize: typeof size === "number" ? size : undefined,
  };
}

function member(value: JsonValue | undefined, name: string): JsonValue | undefined {
  return value instanceof Map ? value.get(name) : undefined;
}

function texts(value: JsonValue | undefined): string[] | undefined {
  return Array.isArray(value) ? value.filter((item) => typeof item === "string") : undefined;
}

function outside(paths: readonly StorePath[], allowed: readonly string[] | undefined): StorePath[] {
  return allowed === undefined ? [] : paths.filter((path) => !allowed.includes(path));
}

function within(paths: readonly StorePath[], forbidden: readonly string[]): StorePath[] {
  return paths.filter((path) => forbidden.includes(path));
}
