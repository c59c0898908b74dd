/**
 * Checkpoints the audit's database in a thread of its own: SQLite copies what was written from its log to the database, and
 * syncs both, which may take as long as the disk likes. There is a thread while much is written.
 */
import { join } from "node:path";
import { Worker } from "node:worker_threads";

/** It ends when nothing was to be done for this long. */
const IDLE_MS = 10_000;
const MOST_MEMORY_MB = 16;

export class CheckpointThread {
  private worker: Worker | undefined;
  private idle: NodeJS.Timeout | undefined;
  private running: PromiseWithResolvers<void> | undefined;
  private readonly makeWorker: () => Worker;

  /** @param makeWorker throws where no thread can be had */
  constructor(makeWorker = newWorker) {
    this.makeWorker = makeWorker;
  }

  /** Resolves when no database is in use; undefined if none is. */
  get busy(): Promise<void> | undefined {
    return this.running?.promise;
  }

  /** Checkpoints a database, unless one is being checkpointed. What fails is tried again when it is asked for again. */
  start(path: string): void {
    if (this.running) return;
    clearTimeout(this.idle);
    this.running = Promise.withResolvers();
    try {
      this.worker ??= this.open();
      this.worker.postMessage(path);
    } catch {
      // No thread can be had. What was written is safe, and SQLite copies it itself once its log is long.
      this.ended();
    }
  }

  close(): void {
    clearTimeout(this.idle);
    void this.worker?.terminate();
    this.worker = undefined;
    this.ended();
  }

  private open(): Worker {
    const worker = this.makeWorker();
    worker.unref();
    worker.on("message", () => {
      this.ended();
      this.idle = setTimeout(() => this.close(), IDLE_MS).unref();
    });
    const lost = (): void => {
      if (this.worker === worker) this.close();
    };
    worker.on("error", lost);
    worker.on("exit", lost);
    return worker;
  }

  private ended(): void {
    this.running?.resolve();
    this.running = undefined;
  }
}

function newWorker(): Worker {
  return new Worker(workerFile(), {
    resourceLimits: { maxOldGenerationSizeMb: MOST_MEMORY_MB, maxYoungGenerationSizeMb: 1 },
  });
}

/** Beside this file; the bundle's pieces are in a folder of their own. */
function workerFile(): string {
  const bundled = import.meta.filename.endsWith(".js");
  return join(import.meta.dirname, bundled ? "../audit-checkpoint.js" : "checkpoint-worker.ts");
}
