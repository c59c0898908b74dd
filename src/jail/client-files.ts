/** What the user's Nix clients read outside: settings and flake registries, of the machine's and the user's own. */
import { readFileSync } from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import type { JailUser } from "./environment.ts";

export interface ClientFiles {
  /** Texts of settings, in the order in which Nix reads them: the last one counts. */
  readonly nixConfs: readonly string[];
  /** Texts of flake registries: the first one counts. */
  readonly registries: readonly string[];
}

const MOST_INCLUDES = 64;

/** @param machine the folder of the machine's settings */
export function clientFiles(
  user: JailUser,
  environment: Readonly<Record<string, string | undefined>>,
  machine = "/etc/nix",
): ClientFiles {
  const own = join(environment.XDG_CONFIG_HOME || join(user.home, ".config"), "nix");
  const ownConfs = environment.NIX_USER_CONF_FILES?.split(delimiter) ?? [join(own, "nix.conf")];
  const confs = [join(machine, "nix.conf"), ...ownConfs.filter((file) => file !== "").reverse()];
  return {
    nixConfs: [
      ...confs.map((file) => withIncludes(file, { left: MOST_INCLUDES })),
      environment.NIX_CONFIG ?? "",
    ],
    registries: [join(own, "registry.json"), join(machine, "registry.json")].map(textOf),
  };
}

/** "" for a file that is not there. */
function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

/** The text of a settings file with those that it includes in their places. */
function withIncludes(file: string, includes: { left: number }): string {
  return textOf(file)
    .split("\n")
    .map((line) => {
      const [, included] = /^\s*!?include\s+([^\s#]+)/.exec(line) ?? [];
      if (included === undefined || includes.left-- <= 0) return line;
      return withIncludes(resolve(dirname(file), included), includes);
    })
    .join("\n");
}
