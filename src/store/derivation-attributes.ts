/**
 * The attributes of a derivation that mean something to Nix: `requiredSystemFeatures`, `__noChroot`,
 * `impureEnvVars`, `outputChecks` and kin. They are in the environment, or, with `__structuredAttrs`, in the
 * JSON text of the variable `__json`.
 * Rules: `src/libstore/derivation-options.cc` in the Nix tree (`parsed-derivations.cc` up to 2.25).
 */

import { type Derivation, DerivationError } from "./derivation.ts";
import { quote } from "./quote.ts";

/** A JSON value whose objects are Maps, so that no key can reach a prototype. */
export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
/** A JSON object. */
export type JsonObject = Map<string, JsonValue>;

/**
 * The attributes of a derivation. Nix ignores the environment where there are structured attributes; here both
 * count, so that what is asked for in either place is seen.
 */
export interface DerivationAttributes {
  /** A text; of two, the structured one. @throws DerivationError if the structured one is of another type. */
  text(name: string): string | undefined;
  /** Whether it is set: to `true` in JSON, to `1` in the environment. @throws DerivationError as above. */
  flag(name: string): boolean;
  /** A list of texts; in the environment, words between white space. Both together. @throws DerivationError as above. */
  list(name: string): string[];
  /** Whether the derivation has the attribute at all, whatever its value. */
  has(name: string): boolean;
  /** The structured attributes, if the derivation has them. Strings hold the bytes of their UTF-8, as elsewhere. */
  readonly json: JsonObject | undefined;
}

/** Deeper structures are not taken: reading and walking them must not exhaust the stack. */
const MAX_JSON_DEPTH = 128;

/** @throws DerivationError if `__json` is not a JSON object in UTF-8. */
export function derivationAttributes(derivation: Derivation): DerivationAttributes {
  const { env } = derivation;
  const encoded = env.get("__json");
  const json = encoded === undefined ? undefined : parseStructured(encoded);
  return {
    text(name) {
      const value = json?.get(name);
      if (value === undefined) return env.get(name);
      if (typeof value !== "string") throw wrongType(name, "a string");
      return value;
    },
    flag(name) {
      const value = json?.get(name);
      if (value !== undefined && typeof value !== "boolean") throw wrongType(name, "true or false");
      return value === true || env.get(name) === "1";
    },
    list(name) {
      const value = json?.has(name) ? json.get(name) : [];
      if (!Array.isArray(value) || !value.every((item) => typeof item === "string"))
        throw wrongType(name, "a list of strings");
      return [...value, ...words(env.get(name) ?? "")];
    },
    has(name) {
      return env.has(name) || json?.has(name) === true;
    },
    json,
  };
}

function words(text: string): string[] {
  return text.split(/[ \t\n\r]+/).filter((word) => word !== "");
}

function wrongType(name: string, wanted: string): DerivationError {
  return new DerivationError(`The structured attribute ${quote(name)} of the derivation must be ${wanted}.`);
}

function parseStructured(encoded: string): JsonObject {
  let parsed: unknown;
  try {
    // Strict, since Nix refuses such bytes too, and a byte order mark is left for JSON.parse to refuse.
    const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    parsed = JSON.parse(utf8.decode(Buffer.from(encoded, "latin1")));
  } catch (error) {
    throw new DerivationError(
      `The structured attributes (__json) of the derivation are not JSON in UTF-8: ${(error as Error).message}`,
      { cause: error },
    );
  }
  const value = withMaps(parsed, 0);
  if (!(value instanceof Map))
    throw new DerivationError("The structured attributes (__json) of the derivation must be a JSON object.");
  return value;
}

function withMaps(value: unknown, depth: number): JsonValue {
  if (depth > MAX_JSON_DEPTH)
    throw new DerivationError(
      `The structured attributes (__json) of the derivation are nested deeper than ${MAX_JSON_DEPTH} levels.`,
    );
  if (typeof value === "string") return byteString(value);
  if (Array.isArray(value)) return value.map((item) => withMaps(item, depth + 1));
  if (typeof value === "object" && value !== null)
    return new Map(Object.entries(value).map(([key, item]) => [byteString(key), withMaps(item, depth + 1)]));
  return value as null | boolean | number;
}

function byteString(text: string): string {
  if (!text.isWellFormed())
    throw new DerivationError(
      `The structured attributes (__json) of the derivation hold half a surrogate pair, in ${quote(text)}.`,
    );
  return Buffer.from(text, "utf8").toString("latin1");
}
