import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { LabError, startProcess } from "./command.ts";

/**
 * Runs `work` while holding an exclusive lock on a file, between processes.
 *
 * The lock is flock(2), held by a helper process that ends with the standard input we give it: Node has
 * no flock of its own, and this way the kernel releases the lock however this process ends.
 */
export async function withLock<T>(file: string, work: () => Promise<T>): Promise<T> {
  mkdirSync(dirname(file), { recursive: true });
  const holder = startProcess(["flock", "-x", file, "sh", "-c", "echo locked; exec cat >/dev/null"]);
  const ended = new Promise<void>((resolve) => holder.on("close", () => resolve()));
  await new Promise<void>((resolve, reject) => {
    holder.stdout?.once("data", () => resolve());
    holder.once("error", (error) => reject(new LabError(`Cannot lock ${file}: ${error.message}.`)));
    holder.once("close", () => reject(new LabError(`Cannot lock ${file}: flock ended.`)));
  });
  try {
    return await work();
  } finally {
    holder.stdin?.end();
    await ended;
  }
}
