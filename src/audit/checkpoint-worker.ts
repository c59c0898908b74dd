/** The thread of `checkpoint-thread.ts`. */
import { DatabaseSync } from "node:sqlite";
import { pathToFileURL } from "node:url";
import { parentPort } from "node:worker_threads";

/** SQLite can begin its log anew only when all of it was copied, and others write meanwhile. */
const MOST_PASSES = 4;

function checkpoint(path: string): void {
  const url = pathToFileURL(path);
  // A segment that was removed meanwhile must not be made again.
  url.searchParams.set("mode", "rw");
  const database = new DatabaseSync(url);
  try {
    const pass = database.prepare("PRAGMA wal_checkpoint(PASSIVE)");
    for (let passes = 0; passes < MOST_PASSES; passes++) {
      const { busy, log, checkpointed } = pass.get() ?? {};
      if (busy !== 0 || log === checkpointed) return;
    }
  } finally {
    database.close();
  }
}

parentPort?.on("message", (path: string) => {
  try {
    checkpoint(path);
  } catch {
    // A full or broken disk: writing fails as well, and says so. The log keeps what was written.
  }
  parentPort?.postMessage(undefined);
});
