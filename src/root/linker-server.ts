/** The linker's socket: lines in, lines out. Who may connect is decided by the socket's owner and mode. */
import { chmodSync, chownSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { JsonLines } from "../contract/json-lines.ts";
import { LinkError } from "../contract/link-error.ts";
import { type LinkerRequest, MAX_LINE, parseRequest, requestId } from "../contract/linker-protocol.ts";
import { errorText, owner } from "../contract/trusted-file.ts";

/** Handles a request; the result is the reply's content besides `ok`. @throws LinkError */
export type LinkerHandler = (request: LinkerRequest) => Promise<Readonly<Record<string, unknown>>>;

const MAX_CONNECTIONS = 16;
/** A client that lets more replies pile up is disconnected. Bytes. */
const MAX_UNREAD = 4 * 1024 * 1024;
/** While this many requests of a client are open, no more are read from it. */
const MAX_OPEN = 1024;

/** systemd's first passed descriptor (sd_listen_fds(3)). */
const PASSED_SOCKET = 3;

/**
 * Listens at `path`, for root and the group. A socket that systemd passes is used as it is.
 *
 * @param group the service's group
 */
export async function listenForService(
  path: string,
  group: number,
  storeDir: string,
  handle: LinkerHandler,
): Promise<Server> {
  const server = createServer((socket) => serve(socket, storeDir, handle));
  server.maxConnections = MAX_CONNECTIONS;
  const passed = process.env.LISTEN_PID === String(process.pid) && Number(process.env.LISTEN_FDS) > 0;
  if (!passed) rmSync(path, { force: true });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    const before = process.umask(0o177);
    server.listen(passed ? { fd: PASSED_SOCKET } : { path }, resolve);
    process.umask(before);
  });
  // Such as too many open files: the next client may have more luck.
  server.on("error", (error) => process.stderr.write(`nix-broker linker: ${error.message}\n`));
  if (!passed) {
    chownSync(path, owner(), group);
    chmodSync(path, 0o660);
  }
  return server;
}

function serve(socket: Socket, storeDir: string, handle: LinkerHandler): void {
  const lines = new JsonLines(MAX_LINE);
  let open = 0;
  const reply = (message: unknown): void => {
    if (socket.destroyed) return;
    socket.write(`${JSON.stringify(message)}\n`);
    if (socket.writableLength > MAX_UNREAD) socket.destroy();
  };
  const refuse = (id: number | null, error: unknown): void => {
    const code = error instanceof LinkError ? error.code : "io";
    reply({ id, ok: false, code, error: errorText(error) });
  };
  const take = (line: string): void => {
    let value: unknown;
    try {
      value = JSON.parse(line);
      const request = parseRequest(value, storeDir);
      if (++open >= MAX_OPEN) socket.pause();
      handle(request)
        .then(
          (result) => reply({ id: request.id, ok: true, ...result }),
          (error: unknown) => refuse(request.id, error),
        )
        .finally(() => {
          if (--open < MAX_OPEN) socket.resume();
        });
    } catch (error) {
      const known = error instanceof LinkError ? error : new LinkError("malformed", "a request must be JSON");
      refuse(requestId(value), known);
      if (known.code === "malformed") socket.end();
    }
  };
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk: Buffer) => {
    if (socket.writableEnded) return;
    try {
      for (const line of lines.push(chunk)) take(line);
    } catch (error) {
      refuse(null, new LinkError("malformed", errorText(error)));
      socket.end();
    }
  });
}
