import { existsSync, lstatSync, readFileSync } from "node:fs";
import { parse, TomlError } from "smol-toml";
import type * as z from "zod/mini";
import type { Config } from "./config.ts";
import { ConfigError } from "./config-error.ts";
import { suggestion } from "./nearest.ts";
import { currentUser, type Environment, ownPlaces, type Places, systemPlaces, type User } from "./places.ts";
import { remainingProblems } from "./remaining.ts";
import { resolveConfig } from "./resolve.ts";
import { configSchema, knownKeys } from "./schema.ts";

/** The system's configuration, if neither `--config` nor `$NIX_BROKER_CONFIG` names a file. */
export const defaultConfigPath = "/etc/nix-broker/config.toml";

type Path = readonly (string | number)[];

/** A problem before its line is known. */
interface Unplaced {
  readonly path: Path;
  readonly message: string;
}

function dotted(path: Path): string {
  return path
    .map((part, index) => {
      if (typeof part === "number") return `[${part}]`;
      const name = /^[A-Za-z0-9_-]+$/.test(part) ? part : JSON.stringify(part);
      return index === 0 ? name : `.${name}`;
    })
    .join("");
}

function problemsOf(issue: z.core.$ZodIssue): Unplaced[] {
  const path = issue.path.filter((part) => typeof part !== "symbol");
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      path: [...path, key],
      message: `there is no such key${suggestion(key, knownKeys(path))}`,
    }));
  }
  if (issue.code === "invalid_type") {
    const wanted = issue.expected === "array" ? `a list of tables, [[${dotted(path)}]]` : "a table";
    return [{ path, message: `expected ${wanted}` }];
  }
  return [{ path, message: issue.message }];
}

function parseToml(file: string | undefined, text: string): unknown {
  try {
    return parse(text);
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const message = `not valid TOML: ${error.message.split("\n")[0]?.replace(/^Invalid TOML document: /, "")}`;
    throw new ConfigError(file, [{ line: error.line, key: "", message }]);
  }
}

/** The parser that knows positions is loaded only now: loading it takes longer than everything else here. */
async function configError(
  file: string | undefined,
  text: string,
  problems: readonly Unplaced[],
): Promise<ConfigError> {
  const { tomlLines } = await import("./toml-lines.ts");
  const lineOf = tomlLines(text);
  return new ConfigError(
    file,
    problems.map(({ path, message }) => ({ line: lineOf(path), key: dotted(path), message })),
  );
}

/**
 * Reads the text of a configuration file.
 *
 * @param file the file's name, for messages; `undefined` if there is none.
 * @param places the defaults of where files are kept.
 * @throws ConfigError naming every problem with its line.
 */
export async function parseConfig(text: string, file?: string, places = systemPlaces): Promise<Config> {
  const parsed = parseToml(file, text);
  const result = configSchema.safeParse(parsed);
  if (!result.success) {
    const wrong = result.error.issues.flatMap(problemsOf);
    throw await configError(file, text, [...wrong, ...remainingProblems(parsed, wrong, places)]);
  }
  const problems: Unplaced[] = [];
  const config = resolveConfig(file, result.data, places, (path, message) =>
    problems.push({ path, message }),
  );
  if (problems.length > 0) throw await configError(file, text, problems);
  return config;
}

/** Where to look for the configuration; all have defaults. */
export interface ConfigSource {
  /** `--config`. */
  readonly path?: string | undefined;
  readonly environment?: Environment;
  readonly user?: User;
  /** An ordinary user means to run a broker of their own, and not to ask the system's. */
  readonly own?: boolean;
}

/**
 * Loads the configuration: the named file, else that of `$NIX_BROKER_CONFIG`, else an ordinary user's own if it
 * exists, else {@link defaultConfigPath} if it exists, else the defaults alone.
 *
 * @throws ConfigError if the file cannot be read or used.
 */
export async function loadConfig({
  path,
  environment = process.env,
  user = currentUser(),
  own = false,
}: ConfigSource = {}): Promise<Config> {
  const named = path ?? (environment.NIX_BROKER_CONFIG || undefined);
  const theirs = ownPlaces(environment, user);
  if (named === undefined) {
    if (theirs && existsSync(theirs.configFile))
      return parseConfig(read(theirs.configFile), theirs.configFile, theirs);
    const asOwn = theirs && (own || !isInstalled() || existsSync(`${theirs.controlDir}/socket`));
    if (asOwn) return parseConfig("", undefined, theirs);
    return existsSync(defaultConfigPath)
      ? parseConfig(read(defaultConfigPath), defaultConfigPath)
      : parseConfig("");
  }
  const text = read(named, path === undefined ? " (from $NIX_BROKER_CONFIG)" : "");
  return parseConfig(text, named, placesFor(named, user, theirs));
}

/** Whether this machine has a broker that is not somebody's own. */
function isInstalled(): boolean {
  return existsSync(defaultConfigPath) || existsSync(systemPlaces.stateDir);
}

/** A file of their own describes a broker of their own; others that they may read are root's. */
function placesFor(file: string, user: User, theirs: Places | undefined): Places {
  return theirs && lstatSync(file).uid === user.uid ? theirs : systemPlaces;
}

/** @throws ConfigError */
function read(file: string, from = ""): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const reason =
      code === "ENOENT" ? "there is no such file" : code === "EACCES" ? "permission denied" : String(error);
    throw new ConfigError(file, [{ line: undefined, key: "", message: `${reason}${from}` }]);
  }
}
