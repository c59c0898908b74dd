/**
 * Which build a process belongs to, according to the mounts that the kernel lists for it. A builder can
 * rename, nest and re-mount as it likes in its own namespaces, but it can only mount folders that it sees,
 * and the chroot of another build is not one of them.
 */
import { lstatSync, readFileSync } from "node:fs";
import { LinkError } from "../contract/link-error.ts";
import { owner } from "../contract/trusted-file.ts";
import { isStoreBase } from "../store/store-path.ts";
import { effectiveUid, processStat } from "./process-tree.ts";

/** One line of `/proc/<pid>/mountinfo`. Format: proc_pid_mountinfo(5). */
export interface Mount {
  /** `major:minor`. */
  readonly device: string;
  /** The folder of the file system that is mounted. */
  readonly root: string;
  readonly mountPoint: string;
  readonly options: string;
}

/** The build of a process. */
export interface BuildIdentity {
  /** The file name of its `.drv`. */
  readonly derivationBase: string;
  /** Relative to the store's folder. */
  readonly chroot: string;
}

/** Longer lists of mounts are not read. Characters. */
const MAX_MOUNTINFO = 16 * 1024 * 1024;

export function parseMounts(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const [, , device, root, mountPoint, options] = line.split(" ");
    if (device === undefined || root === undefined || mountPoint === undefined || options === undefined)
      continue;
    mounts.push({ device, root: fromOctal(root), mountPoint: fromOctal(mountPoint), options });
  }
  return mounts;
}

/** The mount that a folder is on: the deepest of those above it, and the last if there are several. */
export function mountOf(path: string, mounts: readonly Mount[]): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of mounts) {
    const inside =
      mount.mountPoint === "/" || path === mount.mountPoint || path.startsWith(`${mount.mountPoint}/`);
    if (inside && mount.mountPoint.length >= (found?.mountPoint.length ?? 0)) found = mount;
  }
  return found;
}

/** The derivations whose chroots are among the mounts, by the file names of their `.drv`. */
export function chrootsAmong(mounts: readonly Mount[], store: Mount, storeReal: string): Set<string> {
  const below = store.mountPoint === "/" ? storeReal : storeReal.slice(store.mountPoint.length);
  const prefix = `${store.root === "/" ? "" : store.root}${below}/`;
  const found = new Set<string>();
  for (const { device, root } of mounts) {
    if (device !== store.device || !root.startsWith(prefix)) continue;
    const [first = ""] = root.slice(prefix.length).split("/");
    const base = first.slice(0, -".chroot".length);
    if (first.endsWith(".drv.chroot") && isStoreBase(base)) found.add(base);
  }
  return found;
}

/**
 * @param uid the peer's, as reported by the kernel
 * @throws LinkError `not-a-build`
 */
export function identifyBuild(pid: number, uid: number, storeReal: string, storeDir: string): BuildIdentity {
  const before = processStat(pid);
  if (!before || effectiveUid(pid) !== uid) throw notABuild(`there is no process ${pid} of user ${uid}`);
  const store = mountOf(storeReal, parseMounts(readMounts("self")));
  if (!store) throw notABuild("the store's own mount is not known");
  const builds = chrootsAmong(parseMounts(readMounts(String(pid))), store, storeReal);
  const after = processStat(pid);
  if (after?.startTime !== before.startTime || effectiveUid(pid) !== uid)
    throw notABuild(`process ${pid} ended while it was looked at`);
  const [derivationBase] = builds;
  if (derivationBase === undefined) throw notABuild(`process ${pid} does not live in a sandboxed build`);
  if (builds.size > 1) throw notABuild(`process ${pid} has mounts of several builds`);
  return { derivationBase, chroot: chrootLayout(storeReal, storeDir, derivationBase) };
}

/** Up to 2.8 the root is the folder itself; from 2.26 on it is `root` in it. */
function chrootLayout(storeReal: string, storeDir: string, derivationBase: string): string {
  for (const chroot of [`${derivationBase}.chroot/root`, `${derivationBase}.chroot`])
    if (lstatSync(`${storeReal}/${chroot}${storeDir}`, { throwIfNoEntry: false })?.isDirectory()) {
      if (lstatSync(`${storeReal}/${derivationBase}.chroot`).uid === owner()) return chroot;
      throw notABuild(`${derivationBase}.chroot does not belong to root`);
    }
  throw notABuild(`the chroot of ${derivationBase} is gone`);
}

function readMounts(pid: string): string {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/mountinfo`, "latin1");
  } catch {
    throw notABuild(`the mounts of process ${pid} cannot be read`);
  }
  if (text.length > MAX_MOUNTINFO) throw notABuild(`process ${pid} has too many mounts`);
  return text;
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
function fromOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function notABuild(message: string): LinkError {
  return new LinkError("not-a-build", message);
}
