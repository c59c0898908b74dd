/**
 * The attributes of a derivation that mean something to Nix: `requiredSystemFeatures`, `__noChroot`,
 * `impureEnvVars`, `outputChecks` and the like. They are in the environment, or, with `__structuredAttrs`, in the
 * JSON text of the variable `__json`.
 * Rules: `src/libstore/derivation-options.cc` in the Nix tree (`parsed-derivations.cc` up to 2.25).
 */

import { DerivationError } from "./derivation-error.ts";
import { quote } from "./quote.ts";
import type { Slices } from "./slices.ts";
import { type JsonObject, type JsonValue, structuredAttributes } from "./structured-attributes.ts";

/** The attributes that are used; no others are kept. Some mean something to nixpkgs' fetchers only. */
const attributeNames = [
  "__contentAddressed",
  "__impure",
  "__impureHostDeps",
  "__noChroot",
  "__propagatedImpureHostDeps",
  "__sandboxProfile",
  "allowedReferences",
  "allowedRequisites",
  "disallowedReferences",
  "disallowedRequisites",
  "executable",
  "exportReferencesGraph",
  "impureEnvVars",
  "leaveDotGit",
  "mirrorsFile",
  "outputChecks",
  "postFetch",
  "requiredSystemFeatures",
  "sandboxProfile",
  "unpack",
  "url",
  "urls",
] as const;

/** An attribute that can be asked for. */
export type AttributeName = (typeof attributeNames)[number];

const wanted: ReadonlySet<string> = new Set(attributeNames);
const STRUCTURED = "__json";

/**
 * The longest variable, in bytes: the kernel gives no longer one to a builder. `__json`, which builders get as a file, may be
 * longer.
 */
export const LONGEST_ATTRIBUTE = 128 * 1024;

/** Whether that variable of the environment is, or holds, an attribute. */
export function isAttributeName(variable: string): boolean {
  return wanted.has(variable) || variable === STRUCTURED;
}

/**
 * The attributes of a derivation. Nix ignores the environment where there are structured attributes; here both
 * count, so that a request in either place is seen.
 *
 * Everything throws DerivationError when the attributes cannot be read.
 */
export class DerivationAttributes {
  private readonly env: ReadonlyMap<string, string>;
  private readonly json: JsonObject | DerivationError | undefined;

  private constructor(env: ReadonlyMap<string, string>, json: JsonObject | DerivationError | undefined) {
    this.env = env;
    this.json = json;
  }

  /**
   * @param variables those of the environment that are attributes
   * @param tooLong the name of one that is longer than `LONGEST_ATTRIBUTE`
   */
  static *of(variables: ReadonlyMap<string, Buffer>, tooLong?: string): Slices<DerivationAttributes> {
    const env = new Map<string, string>();
    for (const [name, value] of variables) if (name !== STRUCTURED) env.set(name, value.toString("latin1"));
    if (tooLong !== undefined)
      return new DerivationAttributes(
        env,
        new DerivationError(
          `The attribute ${quote(tooLong)} of the derivation is longer than ${LONGEST_ATTRIBUTE} bytes.`,
        ),
      );
    const encoded = variables.get(STRUCTURED);
    if (encoded === undefined) return new DerivationAttributes(env, undefined);
    try {
      return new DerivationAttributes(env, yield* structuredAttributes(encoded, wanted));
    } catch (error) {
      if (!(error instanceof DerivationError)) throw error;
      return new DerivationAttributes(env, error);
    }
  }

  /** About how many bytes of memory they take. */
  get size(): number {
    let size = sizeOfValue(this.json instanceof DerivationError ? undefined : this.json);
    for (const value of this.env.values()) size += value.length;
    return size;
  }

  /** Whether there are structured attributes. */
  get isStructured(): boolean {
    return this.read() !== undefined;
  }

  /** The value of a structured attribute. Strings hold the bytes of their UTF-8, as elsewhere. */
  structured(name: AttributeName): JsonValue | undefined {
    return this.read()?.get(name);
  }

  /** A text; of two, the structured one. @throws DerivationError if the structured one is of another type. */
  text(name: AttributeName): string | undefined {
    const value = this.structured(name);
    if (value === undefined) return this.env.get(name);
    if (typeof value !== "string") throw wrongType(name, "a string");
    return value;
  }

  /** Whether it is set: to `true` in JSON, to `1` in the environment. @throws DerivationError as above. */
  flag(name: AttributeName): boolean {
    const value = this.structured(name);
    if (value !== undefined && typeof value !== "boolean") throw wrongType(name, "true or false");
    return value === true || this.env.get(name) === "1";
  }

  /** A list of texts; in the environment, words between white space. Both together. @throws DerivationError as above. */
  list(name: AttributeName): string[] {
    const given = this.structured(name);
    const value = given === undefined ? [] : given;
    if (!Array.isArray(value) || !value.every((item) => typeof item === "string"))
      throw wrongType(name, "a list of strings");
    return [...value, ...words(this.env.get(name) ?? "")];
  }

  /** What the environment says of it, whatever the structured attributes do. */
  variable(name: AttributeName): string | undefined {
    return this.env.get(name);
  }

  /** Whether the derivation has the attribute at all, whatever its value. */
  has(name: AttributeName): boolean {
    return this.structured(name) !== undefined || this.env.has(name);
  }

  private read(): JsonObject | undefined {
    if (this.json instanceof DerivationError) throw this.json;
    return this.json;
  }
}

/** What a value takes besides its characters. Bytes. */
const VALUE = 32;

function sizeOfValue(value: JsonValue | undefined): number {
  if (typeof value === "string") return VALUE + value.length;
  let size = VALUE;
  if (Array.isArray(value)) for (const item of value) size += sizeOfValue(item);
  else if (value instanceof Map)
    for (const [name, item] of value) size += VALUE + name.length + sizeOfValue(item);
  return size;
}

function words(text: string): string[] {
  return text.split(/[ \t\n\r]+/).filter((word) => word !== "");
}

function wrongType(name: string, expected: string): DerivationError {
  return new DerivationError(
    `The structured attribute ${quote(name)} of the derivation must be ${expected}.`,
  );
}
