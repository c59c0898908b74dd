/** Reading and writing of small files that only root may have written. */
import {
  closeSync,
  constants,
  fchownSync,
  fstatSync,
  fsyncSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { dirname } from "node:path";

/** A file or folder that root relies on does not belong to root, or others may write to it. */
export class UntrustedFileError extends Error {
  override name = "UntrustedFileError";
}

/** The user that everything trusted belongs to: root, or whoever runs a rootless Nix. */
export function owner(): number {
  return process.geteuid?.() ?? 0;
}

/** @throws UntrustedFileError when `stats` show another owner, or anybody else may write. */
export function requireTrusted(stats: Stats, path: string): void {
  if (stats.uid !== owner() && stats.uid !== 0)
    throw new UntrustedFileError(`${path} belongs to user ${stats.uid}; it must belong to root`);
  if ((stats.mode & 0o022) !== 0)
    throw new UntrustedFileError(`${path} is writable by group or others; chmod it to go-w`);
}

/**
 * The text of a regular file that nobody but root could have written; the folder it is in is checked too.
 * @returns undefined when there is no such file.
 * @throws UntrustedFileError when it is not root's, not regular, or longer than `limit` bytes.
 */
export function readTrusted(path: string, limit: number): string | undefined {
  let descriptor: number;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const stats = fstatSync(descriptor);
    requireTrusted(stats, path);
    requireTrusted(statSync(dirname(path)), dirname(path));
    if (!stats.isFile()) throw new UntrustedFileError(`${path} is not a regular file`);
    if (stats.size > limit) throw new UntrustedFileError(`${path} is longer than ${limit} bytes`);
    const bytes = Buffer.alloc(stats.size);
    return bytes.toString("utf8", 0, readSync(descriptor, bytes, 0, bytes.length, 0));
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Writes a file so that readers see either the old or the new one, never a part. The folder must be root's.
 * @param group the group of the new file; readable for it with mode 0640
 */
export function writeTrusted(
  path: string,
  text: string,
  mode: number,
  group = process.getegid?.() ?? 0,
): void {
  const temporary = temporaryOf(path);
  rmSync(temporary, { force: true });
  const descriptor = openSync(temporary, NEW_FILE, mode);
  try {
    // Not writeSync: of what does not fit onto the disk it writes the beginning, and says nothing.
    writeFileSync(descriptor, text);
    fchownSync(descriptor, owner(), group);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(temporary, path);
}

/** As {@link writeTrusted}; others have their turn while this waits for the disk. */
export async function writeTrustedAsync(
  path: string,
  text: string,
  mode: number,
  group: number,
): Promise<void> {
  const temporary = temporaryOf(path);
  rmSync(temporary, { force: true });
  const file = await open(temporary, NEW_FILE, mode);
  try {
    await file.writeFile(text);
    await file.chown(owner(), group);
    await file.sync();
  } finally {
    await file.close();
  }
  renameSync(temporary, path);
}

const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

function temporaryOf(path: string): string {
  return `${dirname(path)}/.${path.slice(path.lastIndexOf("/") + 1)}.${process.pid}`;
}

/** The `code` of an error of the operating system, "" for any other. */
export function errorCode(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

/** The message of whatever was thrown. */
export function errorText(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
