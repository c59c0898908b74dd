/**
 * What a client asks to have built: `X.drv!out1,out2`, `X.drv!*`, or a path
 * (src/libstore/derived-path.cc and path-with-outputs.cc in the Nix tree).
 */
import { isDerivationPath, isStorePath, type StorePath } from "../store/store-path.ts";

export type DerivedPath =
  | { readonly kind: "path"; readonly path: StorePath }
  /** `outputs` sorted, each once; undefined: all of them. */
  | {
      readonly kind: "outputs";
      readonly derivation: StorePath;
      readonly outputs: readonly string[] | undefined;
    };

/** From this version on a bare `X.drv` means the file itself; before, all its outputs. */
const BARE_DERIVATION_IS_A_FILE_SINCE = 30;
/** In characters. This many names of outputs are sorted in a few milliseconds. */
const LONGEST = 64 * 1024;
const OUTPUT_NAME = /^[0-9A-Za-z+\-._?=]+$/;

/** @returns undefined for a text that is not a derived path, or that is one of a dynamic derivation (`X.drv^out!…`). */
export function parseDerivedPath(text: string, minor: number, storeDir: string): DerivedPath | undefined {
  if (text.length > LONGEST) return undefined;
  const at = text.indexOf("!");
  const path = at < 0 ? text : text.slice(0, at);
  if (!isStorePath(path, storeDir)) return undefined;
  if (at < 0) {
    const all = isDerivationPath(path) && minor < BARE_DERIVATION_IS_A_FILE_SINCE;
    return all ? { kind: "outputs", derivation: path, outputs: undefined } : { kind: "path", path };
  }
  if (!isDerivationPath(path)) return undefined;
  const names = text.slice(at + 1);
  if (names === "*") return { kind: "outputs", derivation: path, outputs: undefined };
  // As upstream keeps them (a set), so that two ways to write the same thing are equal.
  const outputs = [...new Set(names.split(","))].sort();
  return outputs.every((name) => OUTPUT_NAME.test(name))
    ? { kind: "outputs", derivation: path, outputs }
    : undefined;
}

/** The form that daemons of `minor` read. */
export function printDerivedPath(path: DerivedPath, minor: number): string {
  if (path.kind === "path") return path.path;
  if (path.outputs) return `${path.derivation}!${path.outputs.join(",")}`;
  return minor < BARE_DERIVATION_IS_A_FILE_SINCE ? path.derivation : `${path.derivation}!*`;
}
