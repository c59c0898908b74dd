/** The service's end of the thread that reads the audit for the page. There is one while somebody uses the page. */
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import type { Answer, Found, Question } from "./audit-worker.ts";

/** Of its heap. What it finds is a few MiB. */
const MOST_MEMORY_MB = 128;
/** It ends when nothing was asked for this long. */
const IDLE_MS = 10_000;

interface Asked {
  readonly resolve: (found: Found) => void;
  readonly reject: (error: Error) => void;
}

export class AuditThread {
  private worker: Worker | undefined;
  private asked: Asked | undefined;
  private idle: NodeJS.Timeout | undefined;

  /** One question at a time. @throws Error when the audit cannot be read now */
  ask(question: Question): Promise<Found> {
    clearTimeout(this.idle);
    return new Promise<Found>((resolve, reject) => {
      this.asked = { resolve, reject };
      this.worker ??= this.start();
      this.worker.postMessage(question);
    }).finally(() => {
      this.asked = undefined;
      this.idle = setTimeout(() => this.close(), IDLE_MS).unref();
    });
  }

  close(): void {
    clearTimeout(this.idle);
    void this.worker?.terminate();
    this.worker = undefined;
    this.asked?.reject(new Error("the service stops"));
  }

  private start(): Worker {
    const worker = new Worker(workerFile(), {
      resourceLimits: { maxOldGenerationSizeMb: MOST_MEMORY_MB },
    });
    worker.unref();
    worker.on("message", (answer: Answer) => {
      if ("error" in answer) this.asked?.reject(new Error(answer.error));
      else this.asked?.resolve(answer);
    });
    worker.on("error", (error: Error) => this.lost(worker, error));
    worker.on("exit", () => this.lost(worker, new Error("the thread that reads it has ended")));
    return worker;
  }

  private lost(worker: Worker, error: Error): void {
    if (this.worker !== worker) return;
    this.worker = undefined;
    this.asked?.reject(error);
  }
}

/** Beside this file; the bundle's pieces are in a folder of their own. */
function workerFile(): string {
  const bundled = import.meta.filename.endsWith(".js");
  return join(import.meta.dirname, bundled ? "../page-audit.js" : "audit-worker.ts");
}
