/**
 * The chroot of a running build, held through descriptors. The builder may rename and replace what it owns at
 * any time, so no path is resolved twice: each component is opened from the one before, and everything later
 * goes through `/proc/self/fd/N/<name>`.
 */
import { closeSync, constants, fstatSync, mkdirSync, openSync, type Stats } from "node:fs";
import { errorCode, owner } from "../contract/trusted-file.ts";
import { removeTree } from "./remove-tree.ts";
import { Turns } from "./turns.ts";

/** The chroot is not the registered one, or it is not safe to write to. */
export class ChrootError extends Error {
  override name = "ChrootError";
}

/**
 * Device and inode of the chroot's store folder: distinguishes it from the chroot of a later build at the
 * same place.
 */
export interface FolderIdentity {
  readonly device: string;
  readonly inode: string;
}

const FOLDER = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;
const STICKY = 0o1000;

/** Copies are made here, out of the builder's reach, until they are renamed into its store. */
const STAGING = ".nix-broker";

export class Chroot {
  private readonly store: number;
  private readonly staging: number;
  private readonly stagingParent: number;

  /**
   * Opens the store folder of a chroot and creates the staging folder, or reuses one that a crash left behind.
   * @param storeReal the folder of the machine's store
   * @param chroot `<name>.drv.chroot` or `<name>.drv.chroot/root`, below it
   * @param storeDir the logical store, which is the path inside the chroot too
   * @param known what was opened before: nothing is done to another one, which is in use
   * @throws ChrootError when a component is not a folder of root's, or others may write to it; when it is not the known one.
   */
  constructor(storeReal: string, chroot: string, storeDir: string, known?: FolderIdentity) {
    const opened: number[] = [];
    const step = (parent: string, name: string): number => {
      const descriptor = openFolder(parent, name);
      opened.push(descriptor);
      return descriptor;
    };
    try {
      const [first, ...below] = chroot.split("/");
      const outer = step(storeReal, first!);
      let root = outer;
      for (const name of below) root = step(at(root), name);
      let current = root;
      for (const name of storeDir.split("/").filter(Boolean)) {
        requireOwned(fstatSync(current), chroot, false);
        current = step(at(current), name);
      }
      requireOwned(fstatSync(outer), chroot, false);
      requireOwned(fstatSync(current), `${chroot}${storeDir}`, true);
      requireSame(identityOf(current), known);
      // If there is a folder around the root (2.26 and later), the builder does not even see the staging folder.
      this.stagingParent = outer;
      this.store = current;
      makeStaging(`${at(outer)}/${STAGING}`);
      this.staging = step(at(outer), STAGING);
      requireOwned(fstatSync(this.staging), `${chroot}/${STAGING}`, false);
      if (fstatSync(this.staging).dev !== fstatSync(current).dev)
        throw new ChrootError(`${chroot} spans two file systems`);
      for (const descriptor of opened)
        if (descriptor !== outer && descriptor !== current && descriptor !== this.staging)
          closeSync(descriptor);
    } catch (error) {
      for (const descriptor of opened) closeSync(descriptor);
      throw error;
    }
  }

  /** The path of the chroot's store. */
  get folder(): string {
    return at(this.store);
  }

  /** The path of an entry of the chroot's store. */
  entry(name: string): string {
    return `${at(this.store)}/${name}`;
  }

  /** The path of an entry of the staging folder. */
  staged(name: string): string {
    return `${at(this.staging)}/${name}`;
  }

  get identity(): FolderIdentity {
    return identityOf(this.store);
  }

  /** Whether Nix removed the chroot. */
  get gone(): boolean {
    return fstatSync(this.store).nlink === 0;
  }

  async close(): Promise<void> {
    const turns = new Turns();
    try {
      await turns.during(() => removeTree(`${at(this.stagingParent)}/${STAGING}`, turns));
    } catch {
      // Nix removes it with the rest of the chroot, and may be doing so now.
    }
    for (const descriptor of [this.store, this.staging, this.stagingParent]) closeSync(descriptor);
  }
}

function makeStaging(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errorCode(error) !== "EEXIST") throw error;
  }
}

function at(descriptor: number): string {
  return `/proc/self/fd/${descriptor}`;
}

function openFolder(parent: string, name: string): number {
  try {
    return openSync(`${parent}/${name}`, FOLDER);
  } catch (error) {
    const code = errorCode(error);
    if (code === "ELOOP" || code === "ENOTDIR")
      throw new ChrootError(`"${name}" in the chroot is not a folder: somebody replaced it`);
    if (code === "ENOENT") throw new ChrootError(`there is no "${name}" in the chroot: it was removed`);
    throw error;
  }
}

function identityOf(folder: number): FolderIdentity {
  const { dev, ino } = fstatSync(folder, { bigint: true });
  return { device: String(dev), inode: String(ino) };
}

function requireSame(found: FolderIdentity, known: FolderIdentity | undefined): void {
  if (known && (known.device !== found.device || known.inode !== found.inode))
    throw new ChrootError("another build has taken the place of the one that was registered");
}

/** @param shared the builder's group may write to it, but cannot remove what belongs to root (sticky). */
function requireOwned(stats: Stats, name: string, shared: boolean): void {
  if (stats.uid !== owner()) throw new ChrootError(`${name} belongs to user ${stats.uid}, not to root`);
  if ((stats.mode & 0o022) !== 0 && !(shared && (stats.mode & STICKY) !== 0))
    throw new ChrootError(`${name} is writable by others`);
}
