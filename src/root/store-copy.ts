/**
 * Making one store path visible in a chroot: folders made, files hard-linked, symlinks copied, and the whole
 * moved into place in one step. Paths are Buffers: names in the store are bytes.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  copyFile,
  fstatSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  openSync,
  readlinkSync,
  readSync,
  renameSync,
  type Stats,
  statfsSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
} from "node:fs";
import { promisify } from "node:util";
import { LinkError } from "../contract/link-error.ts";
import { errorCode, owner } from "../contract/trusted-file.ts";
import type { Chroot } from "./chroot.ts";
import { namesIn } from "./folder-names.ts";
import { removeEntry } from "./remove-tree.ts";
import type { Turns } from "./turns.ts";

/** What a sandbox may still use; counted down as copies appear. */
export interface CopyBudget {
  /** Files, folders and symlinks. */
  entries: number;
  /** Bytes copied; hard links count nothing. */
  bytes: number;
}

export interface CopyOptions {
  /** The folder of the machine's store. */
  readonly storeReal: string;
  /** Whether files may be hard-linked. */
  readonly hardLinks: boolean;
  readonly budget: CopyBudget;
  /** Taken between entries. */
  readonly turns: Turns;
  /** Called after the copy and before it appears; rejects if the path must not appear after all. */
  readonly confirm: () => Promise<void>;
}

const COMPARE_CHUNK = 1 << 20;
const OVERLAYFS_MAGIC = 0x794c7630;

/** Modification time of everything in a store, in seconds (src/libstore/posix-fs-canonicalise.cc in the Nix tree). */
const STORE_TIME = 1;

/** On overlayfs a link copies the file into the upper layer of the machine's store: better a copy into the chroot. */
export function linksAreCheap(storeReal: string): boolean {
  return statfsSync(storeReal).type !== OVERLAYFS_MAGIC;
}

/**
 * Makes `name` of the store visible in the chroot's store.
 * @throws LinkError
 */
export async function copyIntoChroot(name: string, chroot: Chroot, options: CopyOptions): Promise<void> {
  const source = Buffer.from(`${options.storeReal}/${name}`);
  const stats = sourceStats(source);
  const target = Buffer.from(chroot.entry(name));
  const present = statsOf(target);
  if (present) {
    await requireSame(source, stats, target, present, options.turns);
    return;
  }
  try {
    await copyAndPlace(name, chroot, options);
  } catch (error) {
    // A store path that is one file: staging used up the last link that the file system allows.
    if (errorCode(error) !== "EMLINK") throw error;
    await copyAndPlace(name, chroot, { ...options, hardLinks: false });
  }
}

async function copyAndPlace(name: string, chroot: Chroot, options: CopyOptions): Promise<void> {
  const source = Buffer.from(`${options.storeReal}/${name}`);
  const stats = sourceStats(source);
  const staged = Buffer.from(chroot.staged(name));
  await removeEntry(chroot.staged(name), options.turns);
  const copy = new Copy(options);
  try {
    await copy.entry(source, stats, staged);
    await options.confirm();
    place(stats, staged, Buffer.from(chroot.entry(name)));
    options.budget.entries -= copy.entries;
    options.budget.bytes -= copy.bytes;
  } catch (error) {
    await removeEntry(chroot.staged(name), options.turns);
    throw error;
  }
}

/** The growth of one copy. */
class Copy {
  entries = 0;
  bytes = 0;
  private readonly options: CopyOptions;

  constructor(options: CopyOptions) {
    this.options = options;
  }

  async entry(source: Buffer, stats: Stats, target: Buffer): Promise<void> {
    if (++this.entries > this.options.budget.entries)
      throw new LinkError(
        "limit",
        "no more files and folders can be linked into this sandbox (max_entries in root.conf)",
      );
    if (stats.isSymbolicLink()) {
      symlinkSync(readlinkSync(source, "buffer"), target);
      lutimesSync(target, STORE_TIME, STORE_TIME);
    } else if (stats.isFile()) {
      if (!this.options.hardLinks || !tryLink(source, target)) await this.contents(source, stats, target);
    } else {
      mkdirSync(target, { mode: 0o700 });
      // Folders come last: no more than one is held open, however deep they are.
      const folders: Buffer[] = [];
      for (const name of namesIn(source)) {
        const below = join(source, name);
        const found = sourceStats(below);
        if (found.isDirectory()) folders.push(name);
        else await this.entry(below, found, join(target, name));
        if (this.options.turns.due) await this.options.turns.pause();
      }
      for (const name of folders) {
        const below = join(source, name);
        await this.entry(below, sourceStats(below), join(target, name));
      }
      chmodSync(target, 0o555);
      utimesSync(target, STORE_TIME, STORE_TIME);
    }
  }

  private async contents(source: Buffer, stats: Stats, target: Buffer): Promise<void> {
    this.bytes += stats.size;
    if (this.bytes > this.options.budget.bytes)
      throw new LinkError("limit", "no more bytes can be copied into this sandbox (max_bytes in root.conf)");
    await promisify(copyFile)(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
    chownSync(target, owner(), process.getegid?.() ?? 0);
    chmodSync(target, stats.mode & 0o555);
    utimesSync(target, STORE_TIME, STORE_TIME);
  }
}

/** @returns false where the file system cannot make this link and a copy is needed. */
function tryLink(source: Buffer, target: Buffer): boolean {
  try {
    linkSync(source, target);
    return true;
  } catch (error) {
    if (["EMLINK", "EXDEV", "EPERM"].includes(errorCode(error))) return false;
    throw error;
  }
}

/** The step that the builder sees: atomic, and it never replaces what is there. */
function place(stats: Stats, staged: Buffer, target: Buffer): void {
  try {
    if (stats.isDirectory()) {
      // rename(2) does replace an empty folder; but that is the builder's own, so it may lose it.
      renameSync(staged, target);
      return;
    }
    linkSync(staged, target);
  } catch (error) {
    if (["EEXIST", "ENOTEMPTY", "ENOTDIR"].includes(errorCode(error))) throw occupied(target);
    throw error;
  }
  unlinkSync(staged);
}

/**
 * Accepts an existing entry that only root can have created: Nix, because the path is an input, or the linker
 * before a restart. The builder cannot create or move a folder owned by root; it could hard-link files owned
 * by root if the kernel allows that.
 * @throws LinkError
 */
async function requireSame(
  source: Buffer,
  stats: Stats,
  target: Buffer,
  present: Stats,
  turns: Turns,
): Promise<void> {
  const rootMade = present.uid === owner() && (present.isSymbolicLink() || (present.mode & 0o022) === 0);
  if (stats.isDirectory() && present.isDirectory() && rootMade) return;
  if (stats.isSymbolicLink() && present.isSymbolicLink() && rootMade) {
    if (readlinkSync(source, "buffer").equals(readlinkSync(target, "buffer"))) return;
  } else if (stats.isFile() && present.isFile() && rootMade) {
    if (stats.dev === present.dev && stats.ino === present.ino) return;
    if (await sameContents(source, target, turns)) return;
  }
  throw occupied(target);
}

async function sameContents(source: Buffer, target: Buffer, turns: Turns): Promise<boolean> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const wanted = openSync(source, flags);
  try {
    const present = openSync(target, flags);
    try {
      const stats = fstatSync(present);
      const { size } = fstatSync(wanted);
      if (!stats.isFile() || stats.uid !== owner() || stats.size !== size) return false;
      const a = Buffer.allocUnsafe(COMPARE_CHUNK);
      const b = Buffer.allocUnsafe(COMPARE_CHUNK);
      for (let position = 0; position < size; position += COMPARE_CHUNK) {
        const length = Math.min(COMPARE_CHUNK, size - position);
        if (readSync(wanted, a, 0, length, position) !== length) return false;
        if (readSync(present, b, 0, length, position) !== length) return false;
        if (a.compare(b, 0, length, 0, length) !== 0) return false;
        if (turns.due) await turns.pause();
      }
      return true;
    } finally {
      closeSync(present);
    }
  } finally {
    closeSync(wanted);
  }
}

/** @throws LinkError when it is not what a store holds: only root's, nothing writable, no set-uid, no devices. */
function sourceStats(path: Buffer): Stats {
  const stats = statsOf(path);
  if (!stats) throw new LinkError("invalid-path", `${path} does not exist in the machine's store`);
  if (stats.uid !== owner() && stats.uid !== 0)
    throw new LinkError("unsafe-path", `${path} belongs to user ${stats.uid}, not to root`);
  if (stats.isSymbolicLink()) return stats;
  if (!stats.isFile() && !stats.isDirectory())
    throw new LinkError("unsafe-path", `${path} is neither a file, a folder nor a symlink`);
  if ((stats.mode & 0o6222) !== 0)
    throw new LinkError("unsafe-path", `${path} has mode ${(stats.mode & 0o7777).toString(8)}`);
  return stats;
}

function statsOf(path: Buffer): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

function join(folder: Buffer, name: Buffer): Buffer {
  return Buffer.concat([folder, SLASH, name]);
}

const SLASH = Buffer.from("/");

function occupied(target: Buffer): LinkError {
  const name = target.toString().slice(target.lastIndexOf("/") + 1);
  return new LinkError("occupied", `the builder made an entry of its own at ${name} in its store`);
}
