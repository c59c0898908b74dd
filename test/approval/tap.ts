/** Stands between broker and daemon, and does something just before a build request goes on to the daemon. */
import { chmodSync, mkdirSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Daemon } from "../../lab/lab.ts";

/** BuildPaths and BuildPathsWithResults, as a request begins. */
const BUILD_OPERATIONS = [9n, 46n];

export class Tap {
  /** As seen beside the daemon. */
  readonly socket = "/tmp/tap/socket";
  /** Build requests that came by. */
  builds = 0;
  /** Called before each is passed on; given the connection to the daemon. */
  beforeBuild: (upstream: Socket, paths: string) => Promise<void> | void = () => {};
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.server = server;
  }

  static async open(daemon: Daemon): Promise<Tap> {
    const tap = new Tap(createServer((client) => tap.pass(client, connect(daemon.socket))));
    const path = daemon.hostPath(tap.socket);
    mkdirSync(path.slice(0, path.lastIndexOf("/")), { recursive: true });
    await new Promise<void>((resolve) => tap.server.listen(path, resolve));
    chmodSync(path, 0o777);
    return tap;
  }

  close(): void {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }

  private pass(client: Socket, upstream: Socket): void {
    for (const socket of [client, upstream]) {
      this.sockets.add(socket);
      socket.on("error", () => socket.destroy());
    }
    upstream.on("data", (bytes) => client.write(bytes));
    upstream.on("close", () => client.destroy());
    client.on("close", () => upstream.destroy());
    let last = Promise.resolve();
    client.on("data", (bytes: Buffer) => {
      last = last.then(async () => {
        // The broker writes each request in one piece.
        if (bytes.length > 8 && BUILD_OPERATIONS.includes(bytes.readBigUInt64LE(0))) {
          this.builds++;
          await this.beforeBuild(upstream, bytes.toString("latin1"));
        }
        if (!upstream.destroyed) upstream.write(bytes);
      });
    });
  }
}
