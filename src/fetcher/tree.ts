/** Files and folders as an archive has them, in memory but for the contents, and their NAR. */
import type { Spool } from "./spool.ts";

export interface FileNode {
  readonly type: "file";
  readonly executable: boolean;
  readonly spool: Spool;
  readonly start: number;
  readonly length: number;
}
export interface LinkNode {
  readonly type: "symlink";
  readonly target: string;
}
export interface FolderNode {
  readonly type: "folder";
  readonly entries: Map<string, Node>;
}
export type Node = FileNode | LinkNode | FolderNode;

/** More would fill the memory. */
const MOST_NODES = 500_000;
const DEEPEST = 256;
/** Of all names and targets of links: they are held in memory. Characters. */
const MOST_TEXT = 64 * 1024 * 1024;
/** The kernel takes no longer ones (NAME_MAX; PATH_MAX, without the zero at the end). Bytes. */
const LONGEST_NAME = 255;
const LONGEST_TARGET = 4095;

/** An archive that cannot be unpacked; the message says why. */
export class ArchiveError extends Error {
  override name = "ArchiveError";
}

/** @throws ArchiveError for a target of a symbolic link that is too long. */
export function checkTarget(bytes: number): void {
  if (bytes > LONGEST_TARGET) throw new ArchiveError(`it has a link with a target of ${bytes} bytes`);
}

/** Puts entries in their places. Nothing is ever written to a file system, so no name can lead out of it. */
export class TreeBuilder {
  readonly root: FolderNode = { type: "folder", entries: new Map() };
  private nodes = 0;
  private entries = 0;
  private text = 0;

  /** @throws ArchiveError */
  put(path: string, node: Node): void {
    this.entries = counted(this.entries);
    this.addText(path);
    if (node.type === "symlink") {
      checkTarget(Buffer.byteLength(node.target));
      this.addText(node.target);
    }
    const parts = this.parts(path);
    const name = parts.pop();
    if (name === undefined) return;
    const { entries } = this.folder(parts);
    const before = entries.get(name);
    // An archive may list a folder after what is in it.
    if (before?.type === "folder" && node.type === "folder") return;
    this.nodes = counted(this.nodes);
    entries.set(name, node);
  }

  /** What is at that path: hard links name an earlier file. @throws ArchiveError if nothing is */
  at(path: string): Node {
    let node: Node | undefined = this.root;
    for (const part of this.parts(path)) node = node?.type === "folder" ? node.entries.get(part) : undefined;
    if (node === undefined)
      throw new ArchiveError(`it has a hard link to '${shown(path)}', which it does not hold`);
    return node;
  }

  private folder(parts: readonly string[]): FolderNode {
    let folder = this.root;
    for (const part of parts) {
      let next = folder.entries.get(part);
      if (next === undefined) {
        this.nodes = counted(this.nodes);
        next = { type: "folder", entries: new Map() };
        folder.entries.set(part, next);
      }
      if (next.type !== "folder")
        throw new ArchiveError(`it has something below '${shown(part)}', which is not a folder`);
      folder = next;
    }
    return folder;
  }

  private parts(path: string): string[] {
    const parts = path.split("/").filter((part) => part !== "" && part !== ".");
    if (parts.includes("..") || path.includes("\0"))
      throw new ArchiveError(`it has an entry '${shown(path)}', which leads out of it`);
    const long = parts.find((part) => Buffer.byteLength(part) > LONGEST_NAME);
    if (long !== undefined)
      throw new ArchiveError(`it has a name of more than ${LONGEST_NAME} bytes, '${shown(long)}…'`);
    if (parts.length > DEEPEST) throw new ArchiveError(`it has folders more than ${DEEPEST} deep`);
    return parts;
  }

  private addText(text: string): void {
    this.text += text.length;
    if (this.text > MOST_TEXT)
      throw new ArchiveError(`its names have more than ${MOST_TEXT} characters altogether`);
  }
}

/** @throws ArchiveError */
function counted(before: number): number {
  if (before === MOST_NODES) throw new ArchiveError(`it has more than ${MOST_NODES} entries`);
  return before + 1;
}

function shown(path: string): string {
  return path.slice(0, 200);
}

/**
 * The NAR of a node, in pieces.
 * Format: `src/libutil/archive.cc` in the Nix tree, and the manual's page `protocols/nix-archive.md`.
 */
export function* narOf(node: Node): Generator<Buffer> {
  yield str("nix-archive-1");
  yield* narNode(node);
}

function* narNode(node: Node): Generator<Buffer> {
  if (node.type === "file") {
    yield Buffer.concat(
      ["(", "type", "regular", ...(node.executable ? ["executable", ""] : []), "contents"].map(str),
    );
    yield u64(node.length);
    yield* node.spool.read(node.start, node.length);
    yield Buffer.concat([Buffer.alloc(padding(node.length)), str(")")]);
  } else if (node.type === "symlink") {
    yield Buffer.concat(["(", "type", "symlink", "target", node.target, ")"].map(str));
  } else {
    yield Buffer.concat(["(", "type", "directory"].map(str));
    const names = [...node.entries.keys()].map((name) => [name, Buffer.from(name)] as const);
    names.sort(([, a], [, b]) => Buffer.compare(a, b));
    for (const [name] of names) {
      yield Buffer.concat(["entry", "(", "name", name, "node"].map(str));
      yield* narNode(node.entries.get(name)!);
      yield str(")");
    }
    yield str(")");
  }
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function padding(length: number): number {
  return (8 - (length % 8)) % 8;
}

function str(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u64(bytes.length), bytes, Buffer.alloc(padding(bytes.length))]);
}
