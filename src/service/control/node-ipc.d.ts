/** The part of node-ipc 14 that control.ts uses; the package has no types of its own. */
declare module "node-ipc" {
  import type { Server as NetServer, Socket } from "node:net";

  export interface Config {
    id: string;
    socketRoot: string;
    silent: boolean;
    parser: "guarded" | "assured";
    allowedEvents: readonly string[];
    /** Bytes of a frame. */
    maxMessageSize: number;
    /** Bytes that may wait in a socket that its peer does not read. */
    maxPendingBytes: number;
    maxEventNameLength: number;
    /** Milliseconds that a frame may stay incomplete. */
    messageTimeout: number;
    maxConnections: number;
    maxRetries: number;
    stopRetrying: boolean;
  }

  export interface Server {
    /** Of the listening socket; false before `start`. */
    readonly server: NetServer | false;
    on(event: "start", handler: () => void): void;
    on(event: "error", handler: (error: Error) => void): void;
    on(event: "connect", handler: (socket: Socket) => void): void;
    on(event: string, handler: (data: unknown, socket: Socket) => void): void;
    emit(socket: Socket, event: string, data: unknown): boolean;
    /** @throws Error when the folder of the socket cannot be used */
    start(): void;
    stop(): void;
  }

  export interface Client {
    on(event: "connect" | "disconnect" | "destroy", handler: () => void): void;
    on(event: "error", handler: (error: Error) => void): void;
    on(event: string, handler: (data: unknown) => void): void;
    emit(event: string, data: unknown): boolean;
  }

  /** One endpoint with a configuration of its own. */
  export class IPCModule {
    readonly config: Config;
    readonly server: Server;
    readonly of: Readonly<Record<string, Client>>;
    serve(path: string, onStart: () => void): void;
    connectTo(id: string, path: string, onMade: () => void): void;
    disconnect(id: string): void;
  }
}
