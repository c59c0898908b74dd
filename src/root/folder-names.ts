/** The names in a folder, one after the other, however many there are. */
import { opendirSync } from "node:fs";

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
