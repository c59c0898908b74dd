/**
 * The socket on which the compiled hooks ask the linker to do their work: to start a program for each would take longer than
 * the work. Only root may connect, so what a hook says of itself is believed; the rest is read from /proc.
 */
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import type { HookName } from "./hook-call.ts";

/** @returns what the hook prints. It may throw anything: the hook's own program then does the work, or says why it cannot. */
export type HookHandler = (name: HookName, pid: number) => Promise<string>;

/** More hooks than that do without the linker. */
const MAX_CONNECTIONS = 256;
const REQUEST = /^(pre-build-hook|post-build-hook) ([1-9][0-9]{0,9})\n$/;
const LONGEST_REQUEST = 64;
/** An answer without it at its end is not whole. */
const END = "\0";

/** Listens at `path`, for root alone. */
export async function listenForHooks(path: string, handle: HookHandler): Promise<Server> {
  const server = createServer((socket) => serve(socket, handle));
  server.maxConnections = MAX_CONNECTIONS;
  rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    const before = process.umask(0o177);
    server.listen({ path }, resolve);
    process.umask(before);
  });
  // Such as too many open files: the hook's own program does the work then.
  server.on("error", (error) => process.stderr.write(`nix-broker linker: ${error.message}\n`));
  return server;
}

function serve(socket: Socket, handle: HookHandler): void {
  let request = "";
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    request += chunk.toString("latin1");
    if (!request.endsWith("\n") && request.length < LONGEST_REQUEST) return;
    socket.removeAllListeners("data").resume();
    const [, name, pid] = REQUEST.exec(request) ?? [];
    if (name === undefined) socket.destroy();
    else
      handle(name as HookName, Number(pid)).then(
        (answer) => socket.end(`${answer}${END}`),
        () => socket.destroy(),
      );
  });
}
