/** The folders of the user's that a jail gets, at the paths that they have outside. */
import { statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { type Identity, lookAt } from "./identity.ts";
import { JailError } from "./jail-error.ts";
import { realPathOf } from "./machine.ts";

export interface JailFolder {
  /** Where it is on the machine, without links. */
  readonly source: string;
  /** Where the jail sees it. */
  readonly target: string;
  readonly writable: boolean;
  /** Of what was judged. */
  readonly identity: Identity;
}

export interface FolderRequest {
  /** As the user gave it. */
  readonly path: string;
  /** Which option asked for it, for messages. */
  readonly option: string;
  readonly writable: boolean;
}

/** What must not be in a jail, and why. */
export interface Forbidden {
  readonly path: string;
  readonly what: string;
  /** Folders in it may be given, but not the whole. */
  readonly inParts?: true;
  /** It may be seen, but not changed. */
  readonly asIs?: true;
}

/** Whether `path` is `folder` or below it. */
export function isWithin(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way === "" || !(way === ".." || way.startsWith("../") || isAbsolute(way));
}

/** Where a path leads, also if its last parts are not there yet. */
function leadsTo(path: string): string {
  return realPathOf(path) ?? (path === dirname(path) ? path : join(leadsTo(dirname(path)), basename(path)));
}

/** What the kernel, Nix and the jail itself provide; folders of the user's cannot be there. */
const provided = ["/nix", "/proc", "/sys", "/dev"];

/**
 * @param forbidden what no folder may be or contain, nor be in
 * @param storeDir the store, whose contents may be shown elsewhere
 * @throws JailError for one that is not there, or would open the jail
 */
export function jailFolder(
  { path, option, writable }: FolderRequest,
  forbidden: readonly Forbidden[],
  storeDir: string,
): JailFolder {
  const target = resolve(path);
  const said = option === "" ? `the current folder, ${target},` : `${option} ${target}:`;
  const advice = option === "" ? "; change to the folder of one project" : "";
  let source: string;
  let identity: Identity;
  try {
    ({ source, identity } = lookAt(target));
  } catch (error) {
    throw new JailError(`${said} cannot be mounted: ${(error as Error).message}`);
  }
  if (option === "" && !statSync(source).isDirectory()) throw new JailError(`${said} is not a folder`);
  // Both by their names and by where they lead: /home is a link on some systems.
  const secrets = forbidden.flatMap((one) => [one, { ...one, path: leadsTo(one.path) }]);
  // Settings in the home are often links into the store, which the jail can read anyway.
  const isStored = !writable && source !== storeDir && isWithin(source, storeDir);
  for (const each of [source, target]) {
    if (each === source && source !== target && isStored) continue;
    const clash = provided.find((folder) => isWithin(each, folder));
    if (clash !== undefined)
      throw new JailError(`${said} is in ${clash}, which the jail has of its own${advice}`);
    for (const { path: secret, what, inParts, asIs } of secrets)
      if (asIs && !writable) continue;
      else if (isWithin(secret, each))
        throw new JailError(`${said} is or contains ${what}, ${secret}${advice}`);
      else if (inParts === undefined && isWithin(each, secret))
        throw new JailError(`${said} is in ${what}, ${secret}${advice}`);
  }
  return { source, target, writable, identity };
}

/** Where a path of the jail is on the machine, if a writable folder has it. The last one that was mounted there counts. */
export function outsidePath(
  folders: readonly Omit<JailFolder, "identity">[],
  inside: string,
): string | undefined {
  const folder = folders.findLast(({ target }) => isWithin(inside, target));
  if (folder === undefined || !folder.writable) return undefined;
  return resolve(folder.source, relative(folder.target, inside));
}
