/** Where the broker keeps its files if the configuration does not say: as a system service, or as somebody's own. */
import { existsSync } from "node:fs";
import { userInfo } from "node:os";

/** The defaults of keys that depend on who runs the program. */
export interface Places {
  /** `runtime.dir` */
  readonly runtimeDir: string;
  /** `runtime.state_dir` */
  readonly stateDir: string;
  /** `runtime.control_dir`; undefined: `control` in `runtime.state_dir`. */
  readonly controlDir: string | undefined;
  /** `runtime.user` */
  readonly user: string;
  /** `hooks.gcroots_dir` */
  readonly gcrootsDir: string;
}

export const systemPlaces: Places = {
  runtimeDir: "/run/nix-broker",
  stateDir: "/var/lib/nix-broker",
  controlDir: undefined,
  user: "nix-broker",
  gcrootsDir: "/nix/var/nix/gcroots/nix-broker",
};

/** The places of an ordinary user's own broker, below the folders of the XDG Base Directory Specification. */
export interface OwnPlaces extends Places {
  readonly configFile: string;
  readonly controlDir: string;
}

export interface User {
  readonly uid: number;
  readonly name: string;
  readonly home: string;
}

export type Environment = Readonly<Record<string, string | undefined>>;

const ROOT = 0;

export function currentUser(): User {
  const uid = process.getuid?.() ?? ROOT;
  try {
    const { username, homedir } = userInfo();
    return { uid, name: username, home: homedir };
  } catch {
    // A uid that no user has, as in a container.
    return { uid, name: String(uid), home: "/" };
  }
}

/** @returns undefined for root and for the service's own user, who run the system's broker */
export function ownPlaces(environment: Environment, user: User): OwnPlaces | undefined {
  if (user.uid === ROOT || user.name === systemPlaces.user) return undefined;
  // The specification has relative paths ignored.
  const folder = (name: string): string | undefined =>
    environment[name]?.startsWith("/") ? environment[name].replace(/\/+$/, "") : undefined;
  const home = folder("HOME") ?? user.home;
  const stateDir = `${folder("XDG_STATE_HOME") ?? `${home}/.local/state`}/nix-broker`;
  const loginDir = `/run/user/${user.uid}`;
  const runtime = folder("XDG_RUNTIME_DIR") ?? (existsSync(loginDir) ? loginDir : undefined);
  // Without a login session there is none; a folder in /tmp could be somebody else's.
  const runtimeDir = runtime === undefined ? `${stateDir}/run` : `${runtime}/nix-broker`;
  return {
    configFile: `${folder("XDG_CONFIG_HOME") ?? `${home}/.config`}/nix-broker/config.toml`,
    runtimeDir,
    stateDir,
    controlDir: `${runtimeDir}/control`,
    user: user.name,
    gcrootsDir: `${stateDir}/gcroots`,
  };
}

/** Whether a control folder is that of the current user's own broker, where the configuration says nothing else. */
export function isOwnControlDir(folder: string): boolean {
  return ownPlaces(process.env, currentUser())?.controlDir === folder;
}
