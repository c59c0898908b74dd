/**
 * One record of Nix's database in the form of `nix-store --load-db`: one field per line (`decodeValidPathInfo` in
 * src/libstore/path-info.cc and store-api.cc in the Nix tree, the same since 2.3). Pure.
 *
 * A newline in a "reference" would start another record, so only store paths are written, and of the others what they are.
 */
import type { UnkeyedValidPathInfo } from "../protocol/types.ts";
import { isStorePath, type StorePath } from "../store/store-path.ts";

export interface DatabaseRecord {
  readonly path: StorePath;
  /** SHA-256 of the NAR, base 16. */
  readonly narHash: string;
  /** Bytes, in decimal. */
  readonly narSize: string;
  /** "" if there is none. */
  readonly deriver: StorePath | "";
  readonly references: readonly StorePath[];
}

/** What cannot be in a record. */
export class DatabaseRecordError extends Error {
  override name = "DatabaseRecordError";
}

/** The record of a path of which the daemon told this. */
export function databaseRecord(
  path: StorePath,
  { narHash, narSize, deriver, references }: UnkeyedValidPathInfo,
): DatabaseRecord {
  return { path, narHash, narSize: String(narSize), deriver, references };
}

/** @throws DatabaseRecordError when a field is not what its name says */
export function printDatabaseRecord(record: DatabaseRecord, storeDir: string): string {
  const { path, narHash, narSize, deriver, references } = record;
  if (!/^[0-9a-f]{64}$/.test(narHash) || !/^[0-9]{1,20}$/.test(narSize))
    throw new DatabaseRecordError(`the daemon told a hash or a size of ${path} that is none`);
  for (const other of [...references, ...(deriver === "" ? [] : [deriver])])
    if (!isStorePath(other, storeDir))
      throw new DatabaseRecordError(`${JSON.stringify(other)} cannot be in a record`);
  return [path, narHash, narSize, deriver, String(references.length), ...references, ""].join("\n");
}

/** The record with more references; they are only ever added. */
export function withReferences(record: DatabaseRecord, added: Iterable<StorePath>): DatabaseRecord {
  return { ...record, references: [...new Set([...record.references, ...added])].sort() };
}
