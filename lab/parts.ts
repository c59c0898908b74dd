/**
 * The programs that go on running while others wait for what they do: daemons, linkers, services. One that ends by itself would be
 * waited for in vain, so that ends every wait at once.
 */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { LabError } from "./command.ts";

interface Part {
  readonly name: string;
  readonly process: ChildProcess;
  /** What it belongs to, and ends with. */
  readonly owner: object;
  readonly said: () => string;
}

const parts = new Set<Part>();
const pauseMs = 10;

/** A part that ended although nobody had ended it. */
export class PartDied extends LabError {
  readonly part: string;

  constructor(part: string, how: string, said: string) {
    super(`${part} ended by itself (${how}) while it was needed. It said:\n${said.trimEnd() || "(nothing)"}`);
    this.part = part;
  }
}

/**
 * Takes note of a part. One that is ended by `kill` of its process has not died.
 *
 * @param said what it printed so far
 */
export function watchPart(owner: object, name: string, process: ChildProcess, said: () => string): void {
  parts.add({ owner, name, process, said });
}

/** Collects what a process prints on standard error, for `watchPart`; nobody else need read its output. */
export function wordsOf(process: ChildProcess): () => string {
  let words = "";
  process.stdout?.resume();
  process.stderr?.on("data", (text: Buffer) => {
    words += text.toString();
  });
  return () => words;
}

/** No longer minds the parts of an owner: they are about to be ended. */
export function forgetParts(owner: object): void {
  for (const part of parts) if (part.owner === owner) parts.delete(part);
}

/**
 * Waits until `look` gives something other than false or undefined, and returns that.
 *
 * @throws PartDied as soon as a part has ended by itself. That is told once: the next wait is not about it.
 */
export async function until<T>(
  look: () => T | false | undefined | Promise<T | false | undefined>,
): Promise<T> {
  for (;;) {
    const found = await look();
    if (found !== undefined && found !== false) return found;
    await failIfDead();
    await sleep(pauseMs);
  }
}

async function failIfDead(): Promise<void> {
  for (const part of parts) {
    const { exitCode, signalCode, killed } = part.process;
    if (exitCode === null && signalCode === null) continue;
    parts.delete(part);
    if (killed) continue;
    // Its last words may be on their way still; a child of its own may keep the pipe open forever.
    const { stderr } = part.process;
    if (stderr && !stderr.readableEnded) await Promise.race([once(stderr, "end"), sleep(500)]);
    throw new PartDied(part.name, signalCode ?? `exit code ${exitCode}`, part.said());
  }
}

/** Waits for a promise that a part has to keep. @throws PartDied as soon as a part has ended by itself */
export async function whilePartsLive<T>(wait: Promise<T>): Promise<T> {
  let over = false;
  const end = (): void => {
    over = true;
  };
  wait.then(end, end);
  await until(() => over);
  return wait;
}
