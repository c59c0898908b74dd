/**
 * One record of Nix's database in the form of `nix-store --dump-db` and `--load-db`: one field per line
 * (`makeValidityRegistration`, `decodeValidPathInfo` in src/libstore/path-info.cc and store-api.cc in the Nix
 * tree, the same since 2.3). Pure.
 *
 * A newline in a "reference" would start another record, so only store paths are written.
 */
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

/** A dump that is not exactly the one record that was asked for. */
export class DatabaseRecordError extends Error {
  override name = "DatabaseRecordError";
}

/** @throws DatabaseRecordError */
export function parseDatabaseRecord(dump: string, path: StorePath, storeDir: string): DatabaseRecord {
  const lines = dump.split("\n");
  const [dumped, narHash = "", narSize = "", deriver = "", count = ""] = lines;
  const references = lines.slice(5, -1);
  const isRecord =
    dumped === path &&
    /^[0-9a-f]{64}$/.test(narHash) &&
    /^[0-9]{1,20}$/.test(narSize) &&
    (deriver === "" || isStorePath(deriver, storeDir)) &&
    count === String(references.length) &&
    lines.at(-1) === "" &&
    references.every((reference) => isStorePath(reference, storeDir));
  if (!isRecord)
    throw new DatabaseRecordError(`nix-store --dump-db printed something else than one record of ${path}`);
  return { path, narHash, narSize, deriver, references };
}

/** @throws DatabaseRecordError when a reference is not a store path. */
export function printDatabaseRecord(record: DatabaseRecord, storeDir: string): string {
  for (const reference of record.references)
    if (!isStorePath(reference, storeDir))
      throw new DatabaseRecordError(`${JSON.stringify(reference)} cannot be a reference`);
  const { path, narHash, narSize, deriver, references } = record;
  return [path, narHash, narSize, deriver, String(references.length), ...references, ""].join("\n");
}

/** The record with more references; they are only ever added. */
export function withReferences(record: DatabaseRecord, added: Iterable<StorePath>): DatabaseRecord {
  return { ...record, references: [...new Set([...record.references, ...added])].sort() };
}
