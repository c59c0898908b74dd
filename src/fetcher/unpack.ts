/** Reads archives: tar, bare or compressed with gzip, zstd or xz, and zip. By libraries; names and links are ours to check. */
import { once } from "node:events";
import { Readable, type Transform } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { Parser, type ReadEntry } from "tar";
import xzDecompress from "xz-decompress";
import yauzl from "yauzl";
import { Allowance, type Spool, SpoolFull } from "./spool.ts";
import { ArchiveError, checkTarget, type FolderNode, TreeBuilder } from "./tree.ts";

const EXECUTABLE = 0o100;
const TYPE_MASK = 0o170000;
const SYMLINK = 0o120000;
const TAR_MAGIC_AT = 257;

type Kind = "gzip" | "zstd" | "xz" | "bzip2" | "zip" | "tar" | undefined;

function kindOf(start: Buffer): Kind {
  const begins = (...bytes: number[]): boolean => start.subarray(0, bytes.length).equals(Buffer.from(bytes));
  if (begins(0x1f, 0x8b)) return "gzip";
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return "zstd";
  if (begins(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0)) return "xz";
  if (begins(0x42, 0x5a, 0x68)) return "bzip2";
  if (begins(0x50, 0x4b, 3, 4) || begins(0x50, 0x4b, 5, 6)) return "zip";
  return start.toString("latin1", TAR_MAGIC_AT, TAR_MAGIC_AT + 5) === "ustar" ? "tar" : undefined;
}

/**
 * What an archive holds.
 * @returns undefined if it is not an archive
 * @throws ArchiveError when it cannot be unpacked; SpoolFull when it holds too much
 */
export async function unpack(file: Spool, allowance: Allowance): Promise<FolderNode | undefined> {
  const [start = Buffer.alloc(0)] = file.read(0, Math.min(file.length, 512));
  const kind = kindOf(start);
  if (kind === undefined) return undefined;
  if (kind === "bzip2") throw new ArchiveError("it is compressed with bzip2, which is not unpacked here");
  const contents = allowance.newSpool();
  return kind === "zip" ? unzip(file, contents) : untar(uncompressed(file, kind), contents, allowance);
}

function uncompressed(file: Spool, kind: "gzip" | "zstd" | "xz" | "tar"): Readable {
  const raw = Readable.from(file.read(), { objectMode: false });
  const through = (transform: Transform): Readable => {
    raw.on("error", (error) => transform.destroy(error));
    return raw.pipe(transform);
  };
  if (kind === "gzip") return through(createGunzip());
  if (kind === "zstd") return through(createZstdDecompress());
  if (kind === "xz")
    return Readable.fromWeb(new xzDecompress.XzReadableStream(Readable.toWeb(raw) as never) as never);
  return raw;
}

function damaged(error: Error): Error {
  if (error instanceof SpoolFull || error instanceof ArchiveError) return error;
  return new ArchiveError(`it is damaged: ${error.message}`);
}

async function untar(stream: Readable, contents: Spool, allowance: Allowance): Promise<FolderNode> {
  const tree = new TreeBuilder();
  // What is not kept takes time: headers, gaps, and what follows the end.
  const read = new Allowance(allowance.bytes);
  let problem: Error | undefined;
  const parser = new Parser({
    strict: true,
    onReadEntry(entry) {
      try {
        place(tree, contents, entry, allowance);
      } catch (error) {
        problem ??= error as Error;
        entry.resume();
      }
    },
  });
  parser.on("error", (error: Error) => {
    problem ??= damaged(error);
  });
  const ended = once(parser, "end").catch(() => undefined);
  try {
    for await (const piece of stream as AsyncIterable<Buffer>) {
      if (problem) throw problem;
      read.take(piece.length);
      if (!parser.write(piece)) await Promise.race([once(parser, "drain"), ended]);
      // What comes from a file waits for nothing: without this, it would not be heard whether the service still wants it.
      await setImmediate();
    }
  } catch (error) {
    throw problem ?? damaged(error as Error);
  }
  parser.end();
  await ended;
  if (problem) throw problem;
  return tree.root;
}

function place(tree: TreeBuilder, contents: Spool, entry: ReadEntry, allowance: Allowance): void {
  const { path, type, linkpath = "" } = entry;
  switch (type) {
    case "File":
    case "OldFile":
    case "ContiguousFile": {
      const start = contents.length;
      const executable = ((entry.mode ?? 0) & EXECUTABLE) !== 0;
      entry.on("data", (piece: Buffer) => contents.append(piece));
      tree.put(path, { type: "file", executable, spool: contents, start, length: entry.size });
      return;
    }
    case "Directory":
    case "GNUDumpDir":
      tree.put(path, { type: "folder", entries: new Map() });
      break;
    case "SymbolicLink":
      tree.put(path, { type: "symlink", target: linkpath });
      break;
    case "Link": {
      const linked = tree.at(linkpath);
      if (linked.type === "folder") throw new ArchiveError(`it has a hard link to a folder, '${path}'`);
      // In the NAR it is one more file.
      if (linked.type === "file") allowance.take(linked.length);
      tree.put(path, linked);
      break;
    }
    default:
      throw new ArchiveError(`it holds '${path}', which is neither a file nor a folder nor a link (${type})`);
  }
  entry.resume();
}

async function unzip(file: Spool, contents: Spool): Promise<FolderNode> {
  const tree = new TreeBuilder();
  try {
    const zip = await yauzl.fromFdPromise(file.fd, { autoClose: false, lazyEntries: true });
    for await (const entry of zip.eachEntry()) await placeZipped(tree, contents, zip, entry);
  } catch (error) {
    throw damaged(error as Error);
  }
  return tree.root;
}

async function placeZipped(
  tree: TreeBuilder,
  contents: Spool,
  zip: yauzl.ZipFile,
  entry: yauzl.Entry,
): Promise<void> {
  const mode = entry.externalFileAttributes >>> 16;
  if (entry.fileName.endsWith("/")) {
    tree.put(entry.fileName, { type: "folder", entries: new Map() });
    return;
  }
  const start = contents.length;
  const stream = await zip.openReadStreamPromise(entry);
  for await (const piece of stream as AsyncIterable<Buffer>) contents.append(piece);
  const length = contents.length - start;
  if ((mode & TYPE_MASK) === SYMLINK) {
    checkTarget(length);
    const target = Buffer.concat([...contents.read(start, length)]).toString();
    tree.put(entry.fileName, { type: "symlink", target });
  } else {
    const executable = (mode & EXECUTABLE) !== 0;
    tree.put(entry.fileName, { type: "file", executable, spool: contents, start, length });
  }
}
