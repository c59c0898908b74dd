/** A thread of `Waiting`: asks as fast as it is answered, and says how long it had to wait at most. */
import { parentPort, workerData } from "node:worker_threads";
import { connectClient, exchange } from "./client.ts";
import { isValid } from "./requests.ts";

const { socket, path } = workerData as { socket: string; path: string };
const client = await connectClient(socket);
const request = isValid(client, path);
let longest = 0;
parentPort?.on("message", () => {
  parentPort?.postMessage(longest);
  longest = 0;
});
for (;;) {
  const started = performance.now();
  await exchange(client, request);
  longest = Math.max(longest, performance.now() - started);
  // Lets this thread's own messages in.
  await new Promise((resolve) => setTimeout(resolve, 1));
}
