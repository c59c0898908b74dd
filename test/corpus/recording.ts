/**
 * The form of a recorded connection: pieces in the order in which they passed by, each a letter for who sent
 * it (`c` the client, `d` the daemon), a 32-bit little-endian length, and the bytes.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export type Side = "client" | "daemon";

export interface Piece {
  readonly from: Side;
  readonly bytes: Buffer;
}

/** One connection between two real programs. */
export interface Recording {
  /** `<client>-<daemon>-<what was run>-<number of the connection>` */
  readonly name: string;
  readonly client: Buffer;
  readonly daemon: Buffer;
}

const letters: Record<Side, string> = { client: "c", daemon: "d" };

/** Neighbours from the same side are joined: how the kernel cut them is no matter. */
export function writeRecording(pieces: readonly Piece[]): Buffer {
  const joined: Piece[] = [];
  for (const piece of pieces) {
    const last = joined.at(-1);
    if (last?.from === piece.from)
      joined[joined.length - 1] = { from: last.from, bytes: Buffer.concat([last.bytes, piece.bytes]) };
    else joined.push(piece);
  }
  return Buffer.concat(
    joined.flatMap(({ from, bytes }) => {
      const head = Buffer.alloc(5);
      head.write(letters[from], "latin1");
      head.writeUInt32LE(bytes.length, 1);
      return [head, bytes];
    }),
  );
}

export function readPieces(file: Buffer): Piece[] {
  const pieces: Piece[] = [];
  for (let at = 0; at < file.length; ) {
    const from = file.toString("latin1", at, at + 1) === letters.client ? "client" : "daemon";
    const end = at + 5 + file.readUInt32LE(at + 1);
    pieces.push({ from, bytes: file.subarray(at + 5, end) });
    at = end;
  }
  return pieces;
}

/** All that each side sent. */
export function joinSides(pieces: readonly Piece[]): Record<Side, Buffer> {
  const of = (side: Side): Buffer =>
    Buffer.concat(pieces.filter(({ from }) => from === side).map(({ bytes }) => bytes));
  return { client: of("client"), daemon: of("daemon") };
}

/** What is in a recording: written down when it was made, so that a reader that stops early is found out. */
export interface IndexEntry {
  /** The protocol's minor version that both sides spoke. */
  readonly minor: number;
  readonly operations: readonly string[];
}

export const indexFile = join(import.meta.dirname, "index.json");

export function readIndex(): Record<string, IndexEntry> {
  return JSON.parse(readFileSync(indexFile, "utf8")) as Record<string, IndexEntry>;
}

/** Every recording of the corpus. */
export function recordings(): Recording[] {
  return readdirSync(import.meta.dirname)
    .filter((name) => name.endsWith(".bin"))
    .sort()
    .map((name) => ({
      name: name.slice(0, -".bin".length),
      ...joinSides(readPieces(readFileSync(join(import.meta.dirname, name)))),
    }));
}
