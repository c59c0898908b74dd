/**
 * The audit on disk: a folder of numbered databases. The highest number is written to; the others are sealed.
 * `000001.sqlite` continues in `000002.sqlite`, whose first record's hash follows that of the previous
 * segment's last record.
 */

import { chmodSync, closeSync, existsSync, openSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pathToFileURL } from "node:url";
import { makeFolders } from "../host/make-folders.ts";
import { AuditError } from "./error.ts";
import { SEGMENT_FORMAT, segmentFormat } from "./schema.ts";

const FOLDER_MODE = 0o750;
const FILE_MODE = 0o640;
const SEALED_MODE = 0o440;
/** Of the log of writes, 64 MiB. */
const MOST_LOG_PAGES = 16_384;
const FILE_NAME = /^(\d{6,})\.sqlite$/;

/** One file of the audit. */
export interface SegmentFile {
  readonly number: number;
  readonly path: string;
}

export function segmentPath(folder: string, number: number): string {
  return join(folder, `${String(number).padStart(6, "0")}.sqlite`);
}

/**
 * The segments of a folder in their order; none if the folder does not exist.
 * @throws AuditError when it cannot be read.
 */
export function listSegments(folder: string): SegmentFile[] {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return [];
    const advice = " Ask as root, or as a member of the group of the service's user.";
    throw new AuditError(
      "folder",
      `Cannot read the audit in ${folder}: ${(error as Error).message}.${code === "EACCES" ? advice : ""}`,
      { cause: error },
    );
  }
  return names
    .flatMap((name) => {
      const number = FILE_NAME.exec(name)?.[1];
      return number === undefined ? [] : [{ number: Number(number), path: join(folder, name) }];
    })
    .sort((a, b) => a.number - b.number);
}

/** Creates the folder if necessary. Only the service's user may write there, its group may read. */
export function makeAuditFolder(folder: string): void {
  try {
    makeFolders(folder, FOLDER_MODE);
    chmodSync(folder, FOLDER_MODE);
  } catch (error) {
    const message = `Cannot keep the audit in ${folder}: ${(error as Error).message}. Make it writable for the service's user.`;
    throw new AuditError("folder", message, { cause: error });
  }
}

/** Opens a segment for writing; an empty one if there is none yet. */
export function openForWriting(path: string): DatabaseSync {
  makeWritable(path);
  const database = new DatabaseSync(path, { timeout: 20 });
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -4096");
  // Checkpoints are done in another thread, unless that does not keep up: the log must not grow for ever.
  database.exec(`PRAGMA wal_autocheckpoint = ${MOST_LOG_PAGES}`);
  return database;
}

/** SQLite gives its -wal and -shm files the mode of the database. */
function makeWritable(path: string): void {
  // Read-only if an earlier version closed it while somebody read it.
  if (!existsSync(path)) closeSync(openSync(path, "a", FILE_MODE));
  chmodSync(path, FILE_MODE);
}

/**
 * Opens a segment for reading, also while it is written to, and also for a reader who may not write to the folder.
 * Undefined while it is just being created.
 * @throws AuditError for a format of another version, or when it cannot be read.
 */
export function openForReading(path: string): DatabaseSync | undefined {
  try {
    return openReadOnly(path);
  } catch (error) {
    // To read a database in WAL mode SQLite creates files beside it. If it may not, and nobody writes
    // (otherwise these files would exist), it can be told that the file does not change.
    if (error instanceof AuditError || existsSync(`${path}-wal`)) throw error;
    const url = pathToFileURL(path);
    url.searchParams.set("immutable", "1");
    return openReadOnly(url);
  }
}

/** Undefined for a database that is not yet a segment. */
function openReadOnly(path: string | URL): DatabaseSync | undefined {
  const name = path instanceof URL ? path.pathname : path;
  const database = new DatabaseSync(path, { readOnly: true, timeout: 1000 });
  try {
    const format = segmentFormat(database);
    if (format === SEGMENT_FORMAT) return database;
    if (format !== 0) throw formatError(name, format);
  } catch (error) {
    database.close();
    throw error;
  }
  database.close();
  return undefined;
}

export function formatError(path: string, format: number): AuditError {
  return new AuditError(
    "format",
    `${path} has audit format ${format}; this version of nix-broker knows format ${SEGMENT_FORMAT}. Use the version that wrote it.`,
  );
}

/** Closes a segment that will not be written to again, and turns it into one plain, read-only file if that is possible now. */
export function sealSegment(database: DatabaseSync, path: string): void {
  try {
    database.exec("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE");
    chmodSync(path, SEALED_MODE);
  } catch {
    // A reader has it open, or the disk is full. All is in the file and its -wal; the next start seals it.
    // Or retention has removed it meanwhile.
  }
  database.close();
}

/** Seals finished segments that could not be sealed earlier. */
export function sealLeftovers(segments: readonly SegmentFile[]): void {
  for (const { path } of segments) {
    if (existsSync(`${path}-wal`)) sealSegment(openForWriting(path), path);
  }
}

/** Removes a segment and what SQLite keeps beside it. */
export function removeSegment(path: string): void {
  for (const suffix of ["", "-wal", "-shm"]) rmSync(path + suffix, { force: true });
}
