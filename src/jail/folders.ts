/** The folders of the user's that a jail gets, at the paths that they have outside. */
import { statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, relative, resolve } from "node:path";
import { type Identity, lookAt } from "./identity.ts";
import { JailError } from "./jail-error.ts";
import { isLink, realPathOf } from "./machine.ts";
import { wayOf } from "./way.ts";

export interface JailFolder {
  /** The path that the user gave, made absolute. */
  readonly given: string;
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

/** Whether a path leads through one of the folders, or into it. */
export function isThrough(path: string, folders: readonly string[]): boolean {
  return wayOf(path).steps.some((step) => folders.some((folder) => isWithin(step, folder)));
}

/** Where a path leads, also if its last parts are not there yet. */
function leadsTo(path: string): string {
  return realPathOf(path) ?? (path === dirname(path) ? path : join(leadsTo(dirname(path)), basename(path)));
}

/** What the kernel, Nix and the jail itself provide; folders of the user's cannot be there. */
const provided = ["/nix", "/proc", "/sys", "/dev"];

/** What will be at a path where nothing is yet. */
export function lookAhead(path: string): ReturnType<typeof lookAt> {
  return { source: wayOf(path).end, identity: "" };
}

/**
 * @param forbidden what no folder may be or contain, nor be in
 * @param storeDir the store, whose contents may be shown elsewhere
 * @param look at what the path leads to
 * @throws JailError for one that is not there, or would open the jail
 */
export function jailFolder(
  { path, option, writable }: FolderRequest,
  forbidden: readonly Forbidden[],
  storeDir: string,
  look = lookAt,
): JailFolder {
  const target = resolve(path);
  const said = option === "" ? `the current folder, ${target},` : `${option} ${target}:`;
  const advice = option === "" ? "; change to the folder of one project" : "";
  let source: string;
  let identity: Identity;
  try {
    ({ source, identity } = look(target));
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
  return { given: target, source, target, writable, identity };
}

/**
 * Those that contain others come first, or they would be mounted over them. Of two at one place the last one counts, and only
 * that is mounted: what is under it could not be looked at.
 */
export function inOrder(folders: readonly JailFolder[]): JailFolder[] {
  const seen = new Map(folders.map((folder) => [folder.target, folder]));
  return [...seen.values()].sort((a, b) => a.target.length - b.target.length);
}

/**
 * A link in a folder that the jail can write to may be an earlier jail's. It is not followed: neither out of that folder to
 * other files of the user's, nor by bwrap, which makes what is missing on the way to where it mounts, outside as well.
 * @throws JailError
 */
export function refuseLinks(folders: readonly JailFolder[]): void {
  const writable = folders.filter((each) => each.writable);
  for (const { given, source, target } of folders) {
    for (const place of writable) {
      if (isThrough(given, [place.source]) && !isWithin(source, place.source))
        throw new JailError(
          `${given} leads through ${place.source}, which the jail can write to, and out of it by a link, to ${source}: an earlier jail may have made it. Remove the link, or give the path that you mean`,
        );
      const link = linkOn(place, target);
      if (link !== undefined)
        throw new JailError(
          `${link}, which the jail can write to, is a link where ${target} is to be mounted: an earlier jail may have made it. Remove it`,
        );
    }
  }
}

/** The first link on the way of a path of the jail, in a folder that it has. */
function linkOn({ source, target: top }: JailFolder, inside: string): string | undefined {
  if (!isWithin(inside, top)) return undefined;
  let path = source;
  for (const part of relative(top, inside).split("/")) {
    path = join(path, part);
    if (isLink(path)) return path;
  }
  return undefined;
}

/** Where a path of the jail is on the machine, if a writable folder has it. The last one that was mounted there counts. */
export function outsidePath(
  folders: readonly Pick<JailFolder, "source" | "target" | "writable">[],
  inside: string,
): string | undefined {
  const folder = folders.findLast(({ target }) => isWithin(inside, target));
  if (folder === undefined || !folder.writable) return undefined;
  return resolve(folder.source, relative(folder.target, inside));
}
