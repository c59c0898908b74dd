import { Worker } from "node:worker_threads";

/** A client that asks all the time, in a thread of its own: what this one does shall not keep it from asking. */
export class Waiting {
  private readonly worker: Worker;

  constructor(socket: string, path: string) {
    this.worker = new Worker(new URL("./waiting-client.ts", import.meta.url), {
      workerData: { socket, path },
    });
  }

  /** In milliseconds, since this was asked last. */
  longest(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.worker.once("error", reject);
      this.worker.once("message", (milliseconds: number) => {
        this.worker.off("error", reject);
        resolve(milliseconds);
      });
      this.worker.postMessage("longest");
    });
  }

  async stop(): Promise<void> {
    await this.worker.terminate();
  }
}
