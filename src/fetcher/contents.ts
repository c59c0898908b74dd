/** What a download may be, and whether one of that is what the derivation names by its hash. */
import { createHash } from "node:crypto";
import type { FetchJob, Shape } from "../contract/fetch-job.ts";
import type { Download } from "./download.ts";
import type { Allowance, Spool } from "./spool.ts";
import { ArchiveError, type FolderNode, type Node, narOf } from "./tree.ts";
import { unpack } from "./unpack.ts";

/** The contents of the output. */
export interface Contents {
  readonly length: number;
  /** To be read once. */
  pieces(): Iterable<Buffer>;
}

export type Outcome =
  | { readonly found: Contents }
  | { readonly found: undefined; readonly reason: string; readonly got: string | undefined };

/** @throws SpoolFull when an archive holds too much */
export async function contentsOf(
  { spool, digest }: Download,
  job: Pick<FetchJob, "hash" | "hashed" | "shapes" | "sent">,
  allowance: Allowance,
): Promise<Outcome> {
  const { hash, hashed, sent } = job;
  if (hashed === "flat") {
    const found =
      sent === "flat"
        ? { length: spool.length, pieces: () => spool.read() }
        : narContents(plain(spool, false));
    return digest === hash.digest ? { found } : mismatch(digest);
  }
  let got: string | undefined;
  let problem: string | undefined;
  let archive: FolderNode | string | undefined;
  for (const shape of job.shapes) {
    if (shape === "stripped" || shape === "whole") archive ??= await unpacked(spool, allowance);
    const node = nodeOf(shape, spool, archive);
    if (typeof node === "string") problem ??= node;
    else {
      const narDigest = digestOf(node, hash.algorithm);
      if (narDigest === hash.digest) return { found: narContents(node) };
      if (shape === job.shapes[0]) got = narDigest;
    }
  }
  return got === undefined && problem !== undefined
    ? { found: undefined, reason: problem, got }
    : mismatch(got);
}

function mismatch(got: string | undefined): Outcome {
  return { found: undefined, reason: "its contents do not have the hash that the derivation names", got };
}

/** @returns what is wrong with it, if it cannot be unpacked */
async function unpacked(spool: Spool, allowance: Allowance): Promise<FolderNode | string> {
  try {
    return (await unpack(spool, allowance)) ?? "it is not an archive that can be unpacked here (tar, zip)";
  } catch (error) {
    if (error instanceof ArchiveError) return `it cannot be unpacked: ${error.message}`;
    throw error;
  }
}

function plain(spool: Spool, executable: boolean): Node {
  return { type: "file", executable, spool, start: 0, length: spool.length };
}

/** @returns what is wrong with it, if it cannot have that shape */
function nodeOf(shape: Shape, spool: Spool, archive: FolderNode | string | undefined): Node | string {
  if (shape === "file" || shape === "executable") return plain(spool, shape === "executable");
  if (archive === undefined || typeof archive === "string") return archive ?? "";
  if (shape === "whole") return archive;
  const [first, ...more] = archive.entries.values();
  if (first === undefined || more.length > 0)
    return "the archive does not hold one folder alone: stripRoot = false takes it as it is";
  // nixpkgs puts a single file into a folder.
  return first.type === "folder" ? first : archive;
}

function digestOf(node: Node, algorithm: string): string {
  const hash = createHash(algorithm);
  for (const piece of narOf(node)) hash.update(piece);
  return hash.digest("hex");
}

function narContents(node: Node): Contents {
  let length = 0;
  for (const piece of narOf(node)) length += piece.length;
  return { length, pieces: () => narOf(node) };
}
