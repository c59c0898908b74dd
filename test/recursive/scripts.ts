/** Texts of outer and inner builds: bash scripts that call Nix, and the expressions that these build. */
import { type NixVersion, nixString, sandboxScript } from "../../lab/lab.ts";

export interface OuterOptions {
  /** Default: "outer". */
  readonly name?: string;
  /** Whose Nix runs inside; default the daemon's own version. */
  readonly client?: NixVersion;
  /** More attributes: name to Nix expression. */
  readonly attributes?: Readonly<Record<string, string>>;
  /** System features that it requires besides ours. */
  readonly features?: readonly string[];
}

/**
 * An outer build that opts in. Its script has a home, no pager (where a build's output is a terminal, as with
 * 2.8, Nix would start one and wait), and the variables `NIX_PATH` and `NIX_BUILD_HOOK` unset, as in any build.
 */
export function outer(script: string, options: OuterOptions = {}): string {
  const { name = "outer", client, attributes, features = [] } = options;
  return sandboxScript(
    `export HOME="$PWD/home" PAGER=cat NIX_PAGER=cat\nmkdir -p "$HOME"\nset -o pipefail\n${script}`,
    {
      name,
      features: ["nix-broker", ...features],
      ...(client && { client }),
      ...(attributes && { attributes }),
    },
  );
}

/** Shell commands that write a file as it is given here. */
export function writeFile(path: string, text: string): string {
  // Texts may themselves be scripts that write files.
  const end = `END-OF-${path}`;
  return `cat > ${path} <<'${end}'\n${text}\n${end}\n`;
}

/**
 * The expression of a derivation for inside: its builder is the sandbox's own shell, which every profile allows.
 *
 * @param attributes name to Nix expression
 */
export function innerDerivation(
  name: string,
  script: string,
  attributes: Readonly<Record<string, string>> = {},
): string {
  const all = {
    name: nixString(name),
    system: "builtins.currentSystem",
    builder: '"/bin/sh"',
    // The last command is the shell's own: see the lab's README.
    args: `[ "-e" "-c" ${nixString(`${script}\n:\n`)} ]`,
    PATH: '"/usr/bin:/bin"',
    ...attributes,
  };
  return `derivation {\n${Object.entries(all)
    .map(([key, value]) => `  ${key} = ${value};`)
    .join("\n")}\n}`;
}

/** The first line of a text that begins with `KEY=`, without that. */
export function field(text: string, key: string): string {
  const line = text.split("\n").find((each) => each.startsWith(`${key}=`));
  if (line === undefined) throw new Error(`no line "${key}=" in:\n${text}`);
  return line.slice(key.length + 1);
}
