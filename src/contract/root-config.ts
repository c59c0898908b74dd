/**
 * The configuration of the root programs: a flat file of `key=value` lines, so that no parser from a package
 * runs as root, and the shell prefilters can read it, too.
 */
import { readFileSync } from "node:fs";
import { errorText, readTrusted } from "./trusted-file.ts";

/** The user and group that the service runs as. */
export interface ServiceAccount {
  readonly uid: number;
  readonly gid: number;
}

export interface RootConfig {
  /** The store's logical place, as in store paths. */
  readonly storeDir: string;
  /** Where this program sees the store's files. */
  readonly storeReal: string;
  /** The folder of the roots of all sandboxes. */
  readonly gcrootsDir: string;
  /** The real daemon's socket; "" if upstream is a command, and then nothing can be linked. */
  readonly upstreamSocket: string;
  /** The `nix-store` command, a path or a bare name. */
  readonly nixStore: string;
  readonly runtimeDir: string;
  /** A user name, or `uid:gid`. */
  readonly serviceUser: string;
  /** The program to run afterwards, "" for none. */
  readonly nextPreBuildHook: string;
  readonly nextPostBuildHook: string;
  /** Files with keys to sign with; none: the daemon's own setting. */
  readonly secretKeyFiles: readonly string[];
  /** How long the pre-build hook waits for linker and service, in milliseconds. */
  readonly hookWait: number;
  /** How long a chroot may be gone before its sandbox is over, in milliseconds. */
  readonly endGrace: number;
  /** Limits of one sandbox in the linker. */
  readonly maxEntries: number;
  readonly maxBytes: number;
  readonly maxQueue: number;
}

/** The configuration of the root programs cannot be used. */
export class RootConfigError extends Error {
  override name = "RootConfigError";
}

export const DEFAULT_ROOT_CONFIG = "/etc/nix-broker/root.conf";

const defaults: Readonly<Record<string, string>> = {
  store_dir: "/nix/store",
  store_real: "",
  gcroots_dir: "/nix/var/nix/gcroots/nix-broker",
  upstream_socket: "/nix/var/nix/daemon-socket/socket",
  nix_store: "nix-store",
  runtime_dir: "/run/nix-broker",
  // The service's folder. It is not used here, but it is in the file that is generated from the service's
  // configuration.
  state_dir: "",
  service_user: "nix-broker",
  next_pre_build_hook: "",
  next_post_build_hook: "",
  secret_key_files: "",
  hook_wait_ms: "5000",
  end_grace_seconds: "600",
  max_entries: "2000000",
  max_bytes: String(64 * 1024 ** 3),
  max_queue: "4096",
};

const MAX_FILE = 64 * 1024;

/**
 * @param file of the command line; else `NIX_BROKER_ROOT_CONFIG`, else {@link DEFAULT_ROOT_CONFIG}, which alone
 *   may be missing
 * @throws RootConfigError when the file cannot be used, UntrustedFileError when others may have written it.
 */
export function loadRootConfig(file = process.env.NIX_BROKER_ROOT_CONFIG): RootConfig {
  const path = file || DEFAULT_ROOT_CONFIG;
  const text = readTrusted(path, MAX_FILE);
  if (text === undefined && file) throw new RootConfigError(`${path} does not exist`);
  return parseRootConfig(text ?? "", path);
}

/** @param path named in errors. @throws RootConfigError */
export function parseRootConfig(text: string, path: string): RootConfig {
  const values = new Map(Object.entries(defaults));
  const seen = new Set<string>();
  text.split("\n").forEach((line, index) => {
    if (line === "" || line.startsWith("#")) return;
    const where = `${path}, line ${index + 1}`;
    const match = /^([a-z_]+)=(\S.*\S|\S)?$/.exec(line);
    if (!match) throw new RootConfigError(`${where}: expected key=value, with no spaces around "="`);
    const key = match[1]!;
    if (!values.has(key)) throw new RootConfigError(`${where}: unknown key "${key}"`);
    if (seen.has(key)) throw new RootConfigError(`${where}: "${key}" is there twice`);
    seen.add(key);
    values.set(key, match[2] ?? "");
  });
  const text_ = (key: string): string => values.get(key)!;
  const folder = (key: string): string => {
    const value = text_(key);
    if (!/^(\/[^/\0-\x1f=]+)+$/.test(value) || /\/\.\.?(\/|$)/.test(value))
      throw new RootConfigError(
        `${path}: "${key}" must be an absolute path without ".", ".." or "=", not "${value}"`,
      );
    return value;
  };
  const count = (key: string): number => {
    const value = text_(key);
    if (!/^[0-9]{1,15}$/.test(value))
      throw new RootConfigError(`${path}: "${key}" must be a whole number, not "${value}"`);
    return Number(value);
  };
  const storeDir = folder("store_dir");
  return {
    storeDir,
    storeReal: text_("store_real") === "" ? storeDir : folder("store_real"),
    gcrootsDir: folder("gcroots_dir"),
    upstreamSocket: text_("upstream_socket"),
    nixStore: text_("nix_store"),
    runtimeDir: folder("runtime_dir"),
    serviceUser: text_("service_user"),
    nextPreBuildHook: text_("next_pre_build_hook"),
    nextPostBuildHook: text_("next_post_build_hook"),
    secretKeyFiles: text_("secret_key_files").split(" ").filter(Boolean),
    hookWait: count("hook_wait_ms"),
    endGrace: count("end_grace_seconds") * 1000,
    maxEntries: count("max_entries"),
    maxBytes: count("max_bytes"),
    maxQueue: count("max_queue"),
  };
}

/**
 * Looks the service's user up in /etc/passwd (Node has no getpwnam).
 * @throws RootConfigError when there is no such user.
 */
export function serviceAccount(serviceUser: string): ServiceAccount {
  const numbers = /^([0-9]{1,10}):([0-9]{1,10})$/.exec(serviceUser);
  if (numbers) return { uid: Number(numbers[1]), gid: Number(numbers[2]) };
  let passwd: string;
  try {
    passwd = readFileSync("/etc/passwd", "utf8");
  } catch (error) {
    throw new RootConfigError(`cannot look up the user "${serviceUser}": ${errorText(error)}`);
  }
  for (const line of passwd.split("\n")) {
    const [name, , uid, gid] = line.split(":");
    if (name === serviceUser && uid && gid) return { uid: Number(uid), gid: Number(gid) };
  }
  throw new RootConfigError(
    `there is no user "${serviceUser}" in /etc/passwd: make it, or set service_user (a name, or uid:gid)`,
  );
}
