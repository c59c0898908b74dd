/** What a download may be, and whether one of that is what the derivation names by its hash. */
import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
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

/** Hashing gigabytes takes a while: after so many bytes it is heard whether the service still wants it. */
const BETWEEN_PAUSES = 256 * 1024;

/** @throws SpoolFull when an archive holds too much */
export async function contentsOf(
  { spool, digest }: Download,
  job: Pick<FetchJob, "hash" | "hashed" | "shapes" | "sent">,
  allowance: Allowance,
): Promise<Outcome> {
  const { hash, hashed, sent } = job;
  if (hashed === "flat") {
    if (digest !== hash.digest) return mismatch(digest);
    if (sent === "flat") return { found: { length: spool.length, pieces: () => spool.read() } };
    const node = plain(spool, false);
    return { found: narContents(node, await walked(node, () => undefined)) };
  }
  let got: string | undefined;
  let problem: string | undefined;
  let archive: FolderNode | string | undefined;
  for (const shape of job.shapes) {
    if (shape === "stripped" || shape === "whole") archive ??= await unpacked(spool, allowance);
    const node = nodeOf(shape, spool, archive);
    if (typeof node === "string") problem ??= node;
    else {
      const narHash = createHash(hash.algorithm);
      const length = await walked(node, (piece) => narHash.update(piece));
      const narDigest = narHash.digest("hex");
      if (narDigest === hash.digest) return { found: narContents(node, length) };
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

/** Reads the NAR once. @returns its length */
async function walked(node: Node, see: (piece: Uint8Array) => void): Promise<number> {
  let length = 0;
  let paused = 0;
  for (const piece of narOf(node)) {
    see(piece);
    length += piece.length;
    if (length - paused < BETWEEN_PAUSES) continue;
    paused = length;
    await setImmediate();
  }
  return length;
}

function narContents(node: Node, length: number): Contents {
  return { length, pieces: () => narOf(node) };
}
