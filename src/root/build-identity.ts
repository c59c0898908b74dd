/**
 * Which build a process belongs to, according to the mounts that the kernel lists for it. A builder can
 * rename, nest and re-mount as it likes in its own namespaces, but it can only mount folders that it sees,
 * and the chroot of another build is not one of them. Whoever sees the machine's store can mount any: whether such a process is
 * part of the build, its ancestors tell (`linker.ts`).
 */
import { lstatSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { LinkError } from "../contract/link-error.ts";
import { owner } from "../contract/trusted-file.ts";
import { isStoreBase } from "../store/store-path.ts";
import { effectiveUid, processStat } from "./process-tree.ts";

/** One line of `/proc/<pid>/mountinfo`. Format: proc_pid_mountinfo(5). */
interface Mount {
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

/** Longer lists of mounts are not read: a builder can create as many mounts as the kernel allows. Bytes. */
const MAX_MOUNTINFO = 16 * 1024 * 1024;
const CHUNK = 64 * 1024;

function parseMounts(text: string): Mount[] {
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
function mountOf(path: string, mounts: readonly Mount[]): Mount | undefined {
  let found: Mount | undefined;
  for (const mount of mounts) {
    const inside =
      mount.mountPoint === "/" || path === mount.mountPoint || path.startsWith(`${mount.mountPoint}/`);
    if (inside && mount.mountPoint.length >= (found?.mountPoint.length ?? 0)) found = mount;
  }
  return found;
}

/** The derivations whose chroots are among the mounts, by the file names of their `.drv`. */
function chrootsAmong(mounts: readonly Mount[], store: Mount, storeReal: string): Set<string> {
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
export async function identifyBuild(
  pid: number,
  uid: number,
  storeReal: string,
  storeDir: string,
): Promise<BuildIdentity> {
  const before = processStat(pid);
  if (!before || effectiveUid(pid) !== uid) throw notABuild(`there is no process ${pid} of user ${uid}`);
  let store: Mount | undefined;
  for await (const mounts of mountsOf("self"))
    store = mountOf(storeReal, store ? [store, ...mounts] : mounts);
  if (!store) throw notABuild("the store's own mount is not known");
  const builds = new Set<string>();
  for await (const mounts of mountsOf(String(pid)))
    for (const build of chrootsAmong(mounts, store, storeReal)) builds.add(build);
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

/** The mounts of a process, in pieces, so that other work is done in between. */
async function* mountsOf(pid: string): AsyncGenerator<Mount[]> {
  let file: FileHandle;
  try {
    file = await open(`/proc/${pid}/mountinfo`, "r");
  } catch {
    throw notABuild(`the mounts of process ${pid} cannot be read`);
  }
  try {
    const chunk = Buffer.alloc(CHUNK);
    let rest = "";
    for (let length = 0; length <= MAX_MOUNTINFO; ) {
      const { bytesRead } = await file.read(chunk, 0, CHUNK, null);
      if (bytesRead === 0) return;
      length += bytesRead;
      const text = rest + chunk.toString("latin1", 0, bytesRead);
      const end = text.lastIndexOf("\n") + 1;
      rest = text.slice(end);
      yield parseMounts(text.slice(0, end));
    }
  } finally {
    await file.close();
  }
  throw notABuild(`process ${pid} has too many mounts`);
}

/** The kernel writes space, tab, newline and backslash as three octal digits. */
function fromOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function notABuild(message: string): LinkError {
  return new LinkError("not-a-build", message);
}
