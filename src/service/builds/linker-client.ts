/**
 * The service's side of the linker's socket (docs/linker-and-hooks.md). Requests are sent as they come and
 * answered in any order; those of one sandbox are handled in order. The linker may be restarted at any time:
 * unanswered requests are then repeated, which is safe because linking twice changes nothing.
 */
import { createConnection, type Socket } from "node:net";
import { JsonLines } from "../../contract/json-lines.ts";
import type { LinkerStatus } from "../../contract/linker-protocol.ts";

export type { LinkerStatus } from "../../contract/linker-protocol.ts";

/** The linker's answer when it did not do as asked; `code` as in docs/linker-and-hooks.md, or one of our own. */
export class LinkerError extends Error {
  override name = "LinkerError";
  /** A code from the linker, or `unreachable`, `busy`, `closed`. */
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export interface LinkerClientOptions {
  /** How long a request may wait for a linker that is not there, in milliseconds; default 10 000. */
  readonly patience?: number;
  /** How long the linker may take to answer, in milliseconds; default 600 000 for a link, 60 000 for others. */
  readonly answer?: number;
  /** How many requests may be open; default 65 536. */
  readonly maxOpen?: number;
}

interface OpenRequest {
  readonly line: string;
  readonly resolve: (reply: Record<string, unknown>) => void;
  readonly reject: (error: LinkerError) => void;
  /** When it is abandoned if there is no connection by then. */
  readonly deadline: number;
  readonly timer: NodeJS.Timeout;
}

const RETRY_MS = 50;
/** Linking may mean copying gigabytes, after other requests of the same sandbox. */
const LINK_MS = 600_000;
const ANSWER_MS = 60_000;
const MAX_REPLY_LINE = 64 * 1024;

export class LinkerClient {
  private readonly path: string;
  private readonly patience: number;
  private readonly answer: number | undefined;
  private readonly maxOpen: number;
  private readonly open = new Map<number, OpenRequest>();
  private lastId = 0;
  private socket: Socket | undefined;
  private retry: NodeJS.Timeout | undefined;
  private closed = false;
  private lastFailure = "";

  /** @param path of the linker's socket */
  constructor(path: string, options: LinkerClientOptions = {}) {
    this.path = path;
    this.patience = options.patience ?? 10_000;
    this.answer = options.answer;
    this.maxOpen = options.maxOpen ?? 65_536;
  }

  /** Makes a valid store path visible in a sandbox; resolves when it is completely there. @throws LinkerError */
  async link(sandbox: string, path: string): Promise<void> {
    await this.request({ op: "link", sandbox, path });
  }

  /** @throws LinkerError */
  async status(): Promise<LinkerStatus> {
    const { sandboxes, queued, linked, upstream, store } = await this.request({ op: "status" });
    return {
      version: 1,
      sandboxes: Number(sandboxes),
      queued: Number(queued),
      linked: Number(linked),
      upstream: String(upstream),
      store: String(store),
    };
  }

  /**
   * The sandbox of the build that a peer of a static socket lives in.
   * @param pid and uid as the kernel tells them of the peer
   * @throws LinkerError `not-a-build`, `not-opted-in`
   */
  async identify(pid: number, uid: number): Promise<string> {
    const { sandbox } = await this.request({ op: "identify", pid, uid });
    if (typeof sandbox !== "string") throw new LinkerError("malformed", "the linker did not name a sandbox");
    return sandbox;
  }

  /** Says that a sandbox that has ended is no longer needed. @throws LinkerError `not-ended` */
  async release(sandbox: string): Promise<void> {
    await this.request({ op: "release", sandbox });
  }

  /** Requests that it has not answered yet. */
  get waiting(): number {
    return this.open.size;
  }

  /** Rejects open requests and does not connect again. */
  close(): void {
    this.closed = true;
    clearTimeout(this.retry);
    this.socket?.destroy();
    this.rejectAll(() => true, "closed", "the service stops");
  }

  private request(body: Record<string, unknown>): Promise<Record<string, unknown>> {
    if (this.closed) return Promise.reject(new LinkerError("closed", "the service stops"));
    if (this.open.size >= this.maxOpen)
      return Promise.reject(new LinkerError("busy", "too many requests wait for the linker"));
    const id = ++this.lastId;
    const line = `${JSON.stringify({ id, ...body })}\n`;
    return new Promise((resolve, reject) => {
      const patience = this.answer ?? (body.op === "link" ? LINK_MS : ANSWER_MS);
      const timer = setTimeout(() => {
        const message = `the linker has not answered for ${patience / 1000} s (systemctl status nix-broker-linker)`;
        this.rejectAll((request) => request.timer === timer, "unreachable", message);
      }, patience);
      this.open.set(id, { line, resolve, reject, deadline: Date.now() + this.patience, timer });
      if (this.socket && !this.socket.connecting) this.socket.write(line);
      else this.connect();
    });
  }

  private connect(): void {
    if (this.socket || this.retry || this.closed) return;
    const socket = createConnection(this.path);
    this.socket = socket;
    const lines = new JsonLines(MAX_REPLY_LINE);
    socket.on("connect", () => {
      for (const { line } of this.open.values()) socket.write(line);
    });
    socket.on("data", (chunk: Buffer) => {
      try {
        for (const line of lines.push(chunk)) this.take(line);
      } catch (error) {
        socket.destroy(error as RangeError);
      }
    });
    socket.on("error", (error) => {
      this.lastFailure = error.message;
    });
    socket.on("close", () => {
      this.socket = undefined;
      this.retryLater();
    });
  }

  /** Idle, the connection is not made again until the next request. */
  private retryLater(): void {
    const now = Date.now();
    const failure = this.lastFailure || "it closed the connection";
    this.rejectAll(
      (request) => now > request.deadline,
      "unreachable",
      `the linker does not answer at ${this.path}: ${failure} (systemctl status nix-broker-linker)`,
    );
    if (this.open.size === 0 || this.closed) return;
    this.retry = setTimeout(() => {
      this.retry = undefined;
      this.connect();
    }, RETRY_MS);
  }

  private take(line: string): void {
    const reply = parseReply(line);
    const id = Number(reply?.id);
    if (!reply || !(id > 0 && id <= this.lastId)) {
      this.socket?.destroy(new Error("the linker sent something that is not a reply"));
      return;
    }
    const request = this.open.get(id);
    // It was abandoned, and the answer arrives after all.
    if (!request) return;
    clearTimeout(request.timer);
    this.open.delete(id);
    if (reply.ok === true) request.resolve(reply);
    else request.reject(new LinkerError(String(reply.code), String(reply.error)));
  }

  private rejectAll(which: (request: OpenRequest) => boolean, code: string, message: string): void {
    for (const [id, request] of this.open)
      if (which(request)) {
        clearTimeout(request.timer);
        this.open.delete(id);
        request.reject(new LinkerError(code, message));
      }
  }
}

function parseReply(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
