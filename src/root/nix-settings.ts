/** The few settings of the daemon that the root programs need, from where the daemon passes them on. */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";

const MAX_INCLUDES = 64;

/**
 * The value of a setting: from `NIX_CONFIG`, which holds all settings in hooks of 2.4 and later, else from nix.conf. Of
 * several lines the last one counts (src/libutil/configuration.cc in the Nix tree).
 * @param read the text of a settings file
 */
export function nixSetting(
  name: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
  read: (path: string) => string = textIfReadable,
): string {
  const inherited = environment.NIX_CONFIG;
  const file = `${environment.NIX_CONF_DIR ?? "/etc/nix"}/nix.conf`;
  const lines =
    inherited === undefined ? fileLines(file, read, { left: MAX_INCLUDES }) : inherited.split("\n");
  let value = "";
  for (const line of lines) {
    const words = wordsOf(line);
    if (words[0] === name && words[1] === "=") value = words.slice(2).join(" ");
    else if (words[0] === `extra-${name}` && words[1] === "=")
      value = [value, ...words.slice(2)].join(" ").trim();
  }
  return value;
}

/** What this process cannot read, the daemon that called it could not read either. */
function textIfReadable(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** The lines of a settings file, including those of the files that it includes, in order. */
function fileLines(path: string, read: (path: string) => string, includes: { left: number }): string[] {
  return read(path)
    .split("\n")
    .flatMap((line) => {
      const [word, included] = wordsOf(line);
      if ((word !== "include" && word !== "!include") || included === undefined) return [line];
      return includes.left-- > 0 ? fileLines(resolve(dirname(path), included), read, includes) : [];
    });
}

function wordsOf(line: string): string[] {
  return line
    .replace(/#.*/, "")
    .split(/[ \t\r]+/)
    .filter(Boolean);
}
