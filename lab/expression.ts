import { cacheInside, type NixVersion } from "./versions.ts";

/** How to make a derivation out of a script. */
export interface SandboxScriptOptions {
  /** Default: "sandbox-script". */
  readonly name?: string;
  /** Whose Nix programs come first in the builder's PATH; default none but the daemon's own. */
  readonly client?: NixVersion;
  /** The derivation's requiredSystemFeatures. */
  readonly features?: readonly string[];
  /** More attributes: name to Nix expression, such as `{ dep: "import ./dep.nix", two: "\"2\"" }`. */
  readonly attributes?: Readonly<Record<string, string>>;
}

/** The platform of this machine as Nix names it. */
export const nixSystem = `${{ x64: "x86_64", arm64: "aarch64" }[process.arch as string] ?? process.arch}-linux`;

/** A text as a Nix string, quotes included. */
export function nixString(text: string): string {
  return `"${text.replaceAll(/[\\"]|\$\{/g, "\\$&")}"`;
}

/**
 * An expression of a derivation whose builder runs a bash script (with `set -e`) in the sandbox, with
 * coreutils and Nix in its PATH. In the script, `$out` and the attributes are variables.
 */
export function sandboxScript(script: string, options: SandboxScriptOptions = {}): string {
  const path = [...(options.client ? [`${cacheInside}/${options.client}/bin`] : []), "/usr/bin", "/bin"].join(
    ":",
  );
  // Nix kills a builder when its output is closed, so a last command must not be one that bash would exec.
  const wholeScript = `${script}\n:\n`;
  const attributes: Record<string, string> = {
    name: nixString(options.name ?? "sandbox-script"),
    system: nixString(nixSystem),
    builder: nixString("/bin/bash"),
    args: `[ "-e" "-c" ${nixString(wholeScript)} ]`,
    PATH: nixString(path),
    ...(options.features && { requiredSystemFeatures: `[ ${options.features.map(nixString).join(" ")} ]` }),
    ...options.attributes,
  };
  const lines = Object.entries(attributes).map(([name, value]) => `${nixString(name)} = ${value};`);
  return `derivation { ${lines.join("\n")} }`;
}
