/** The environment variables of a jail: few, since tokens and keys are often among those of the user. */
import { delimiter } from "node:path";
import { JailError } from "./jail-error.ts";
import { searchPathWithoutPasswords } from "./password.ts";

/** Passed on as they are. None of them holds secrets. */
const harmless = [
  "COLORTERM",
  "EDITOR",
  "FORCE_COLOR",
  "LANG",
  "LANGUAGE",
  "NO_COLOR",
  "PAGER",
  "SHELL",
  "TERM",
  "TERM_PROGRAM",
  "TERM_PROGRAM_VERSION",
  "TZ",
  "VISUAL",
] as const;

export interface JailUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

interface Surroundings {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly user: JailUser;
  readonly storeDir: string;
  /** As `realPathOf`: undefined for what is not there. */
  realPath(path: string): string | undefined;
}

/** Options `--env NAME` and `--env NAME=VALUE`. @throws JailError */
function asked(words: readonly string[], environment: Surroundings["environment"]): Record<string, string> {
  const variables: Record<string, string> = {};
  for (const word of words) {
    const [, name = "", value = environment[name]] = /^([A-Za-z_][A-Za-z0-9_]*)(?:=(.*))?$/s.exec(word) ?? [];
    if (name === "") throw new JailError(`--env ${word}: expected NAME, or NAME=VALUE`);
    if (value === undefined) throw new JailError(`--env ${word}: there is no such variable`);
    variables[name] = value;
  }
  return variables;
}

/**
 * @param words of `--env`
 * @throws JailError for words that are no variable
 */
export function jailEnvironment(
  words: readonly string[],
  surroundings: Surroundings,
): Record<string, string> {
  const { environment, user } = surroundings;
  const variables: Record<string, string> = {
    PATH: programPath(environment.PATH ?? "/usr/local/bin:/usr/bin:/bin", surroundings),
    HOME: user.home,
    USER: user.name,
    LOGNAME: user.name,
    NIX_REMOTE: "daemon",
  };
  for (const [name, value] of Object.entries(environment))
    if (value !== undefined && (harmless.some((each) => each === name) || name.startsWith("LC_")))
      variables[name] = value;
  const nixPath = searchPathWithoutPasswords(environment.NIX_PATH ?? channels(surroundings));
  if (nixPath !== "") variables.NIX_PATH = inStore(nixPath, surroundings);
  for (const name of ["NIX_SSL_CERT_FILE", "LOCALE_ARCHIVE", "TERMINFO", "TERMINFO_DIRS"]) {
    const value = environment[name];
    if (value !== undefined) variables[name] = inStore(value, surroundings);
  }
  return { ...variables, ...asked(words, environment) };
}

/** Where Nix itself looks if there is no NIX_PATH, as far as it is there. */
function channels({ user, realPath }: Surroundings): string {
  const root = "/nix/var/nix/profiles/per-user/root/channels";
  return [
    [`${user.home}/.nix-defexpr/channels`, ""],
    [`${root}/nixpkgs`, "nixpkgs="],
    [root, ""],
  ]
    .filter(([path = ""]) => realPath(path) !== undefined)
    .map(([path = "", prefix = ""]) => prefix + path)
    .join(delimiter);
}

/**
 * Where programs are looked for. Profiles of the user's stay in the list beside where they lead: the jail's home may get
 * its own, and has one as soon as something is installed in it.
 */
function programPath(list: string, surroundings: Surroundings): string {
  const { home } = surroundings.user;
  const profile = `${home}/.nix-profile/bin`;
  const entries = list.split(delimiter).flatMap((entry) => {
    const real = inStore(entry, surroundings);
    return real !== entry && entry.startsWith(`${home}/`) ? [entry, real] : [real];
  });
  return (entries.includes(profile) ? entries : [profile, ...entries]).join(delimiter);
}

/**
 * A list of paths in which those that lead into the store by links are replaced by where they lead: the jail has the
 * store, but not the profiles that the links are in.
 */
function inStore(list: string, { storeDir, realPath }: Surroundings): string {
  return list
    .split(delimiter)
    .map((entry) => {
      const [, prefix = "", path = ""] = /^([^/=]*=)?(\/.*)$/s.exec(entry) ?? [];
      const real = path === "" ? undefined : realPath(path);
      return real?.startsWith(`${storeDir}/`) ? prefix + real : entry;
    })
    .join(delimiter);
}
