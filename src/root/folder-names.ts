/** The names in a folder, one after the other, however many there are. */
import { opendirSync, readdirSync } from "node:fs";
import { errorCode } from "../contract/trusted-file.ts";

/** Names are bytes. @throws errors of the operating system */
export function* namesIn(folder: string | Buffer): Generator<Buffer> {
  // Node's types do not know that the names are buffers then.
  const entries = opendirSync(folder as string, { encoding: "buffer" as BufferEncoding });
  try {
    for (let entry = entries.readSync(); entry; entry = entries.readSync()) yield Buffer.from(entry.name);
  } finally {
    entries.closeSync();
  }
}

/** All of them at once; none if there is no folder. */
export function namesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}
