/**
 * A minimal client of the real daemon: is this path valid, and what does it refer to? Offers the newest protocol, since some
 * daemons (Lix 2.94 and later) hang up on old ones, and speaks what was agreed. Daemon processes keep no cache of their own,
 * so one connection may stay open.
 */
import { createConnection, type Socket } from "node:net";
import { errorText } from "../contract/trusted-file.ts";
import type { ByteSource } from "../protocol/byte-stream.ts";
import { type DialectTable, tableFor } from "../protocol/dialect-table.ts";
import { greetDaemon } from "../protocol/handshake.ts";
import { logCodecs, STDERR } from "../protocol/log-messages.ts";
import { MessageReader } from "../protocol/message-reader.ts";
import type { OperationName, ReplyOf, RequestOf } from "../protocol/operations.ts";
import type { UnkeyedValidPathInfo } from "../protocol/types.ts";
import { NEWEST_MINOR } from "../protocol/version.ts";
import { Encoder, fromWireText, WireError } from "../protocol/wire.ts";
import type { StorePath } from "../store/store-path.ts";

/** The daemon cannot be asked, or reported a failure. */
export class DaemonQueryError extends Error {
  override name = "DaemonQueryError";
}

/** Longer replies are not read. */
const MAX_REPLY = 64 * 1024 * 1024;
/** A daemon that does not answer within this time is given up. Milliseconds. */
const TIMEOUT = 30_000;

/** Questions to the daemon, one after the other, over a connection that is opened when needed and again when lost. */
export class DaemonQuery {
  private readonly socketPath: string;
  private readonly storeDir: string;
  private session: Promise<Session> | undefined;
  private queue: Promise<unknown> = Promise.resolve();

  constructor(socketPath: string, storeDir: string) {
    this.socketPath = socketPath;
    this.storeDir = storeDir;
  }

  /** @throws DaemonQueryError */
  isValidPath(path: StorePath): Promise<boolean> {
    return this.ask("IsValidPath", { path });
  }

  /** Which of the paths are valid. @throws DaemonQueryError */
  async validPaths(paths: readonly StorePath[]): Promise<Set<StorePath>> {
    return new Set(await this.ask("QueryValidPaths", { paths: [...paths], substitute: 0 }));
  }

  /** @returns undefined when the path is not valid. @throws DaemonQueryError */
  info(path: StorePath): Promise<UnkeyedValidPathInfo | undefined> {
    return this.ask("QueryPathInfo", { path });
  }

  /** Keeps a path, valid or not, from the garbage collector until the connection closes. @throws DaemonQueryError */
  async keep(path: StorePath): Promise<void> {
    await this.ask("AddTempRoot", { path });
  }

  close(): void {
    this.session?.then(
      (session) => session.socket.destroy(),
      () => undefined,
    );
    this.session = undefined;
  }

  private ask<N extends OperationName>(name: N, request: RequestOf<N>): Promise<ReplyOf<N>> {
    const answer = this.queue.then(() => this.askNow(name, request));
    this.queue = answer.catch(() => undefined);
    return answer;
  }

  private async askNow<N extends OperationName>(name: N, request: RequestOf<N>): Promise<ReplyOf<N>> {
    const reused = this.session !== undefined;
    this.session ??= openSession(this.socketPath, this.storeDir);
    try {
      const session = await this.session;
      return await session.ask(name, request);
    } catch (error) {
      this.close();
      // The daemon may have been restarted since the last question; then a fresh connection answers.
      if (reused && !(error instanceof DaemonQueryError)) return this.askNow(name, request);
      if (error instanceof DaemonQueryError) throw error;
      throw new DaemonQueryError(`cannot ask the nix-daemon at ${this.socketPath}: ${errorText(error)}`);
    }
  }
}

async function openSession(socketPath: string, storeDir: string): Promise<Session> {
  const socket = createConnection(socketPath);
  socket.setTimeout(TIMEOUT, () => socket.destroy(new Error(`no answer within ${TIMEOUT / 1000} s`)));
  const session = new Session(socket, storeDir);
  try {
    await session.greet();
  } catch (error) {
    socket.destroy();
    throw error;
  }
  return session;
}

class Session {
  readonly socket: Socket;
  private readonly reader: MessageReader;
  private table: DialectTable;

  constructor(socket: Socket, storeDir: string) {
    this.socket = socket;
    this.reader = new MessageReader(new SocketSource(socket), MAX_REPLY);
    this.table = tableFor({ minor: NEWEST_MINOR, features: new Set(), storeDir });
  }

  async greet(): Promise<void> {
    const offered = this.table;
    const { minor, features } = await greetDaemon(this.reader, (bytes) => this.socket.write(bytes), offered);
    this.table = tableFor({ minor, features, storeDir: offered.storeDir });
    await this.drainLog();
    this.pauseTimeout();
  }

  async ask<N extends OperationName>(name: N, request: RequestOf<N>): Promise<ReplyOf<N>> {
    const operation = this.table.byName[name];
    const encoder = new Encoder();
    encoder.u64(operation.number);
    operation.request.encode(encoder, request);
    this.socket.setTimeout(TIMEOUT);
    this.socket.write(encoder.finish());
    await this.drainLog();
    const reply = (await this.reader.read(operation.reply)) as ReplyOf<N>;
    this.pauseTimeout();
    return reply;
  }

  /** Nothing is expected until the next question. */
  private pauseTimeout(): void {
    this.socket.setTimeout(0);
  }

  /** Skips log messages up to "done". @throws DaemonQueryError with the daemon's text. */
  private async drainLog(): Promise<void> {
    const codecs = logCodecs(this.table);
    for (;;) {
      const kind = await this.reader.read(codecs.number);
      if (kind === STDERR.last) return;
      if (kind === STDERR.next) await this.reader.read(codecs.string);
      else if (kind === STDERR.startActivity) await this.reader.read(codecs.startActivity);
      else if (kind === STDERR.stopActivity) await this.reader.read(codecs.stopActivity);
      else if (kind === STDERR.result) await this.reader.read(codecs.result);
      else if (kind === STDERR.error) {
        const { message } = await this.reader.read(codecs.error);
        throw new DaemonQueryError(`the nix-daemon says: ${fromWireText(message)}`);
      } else throw new WireError(`the nix-daemon sent an unknown log message (${kind})`);
    }
  }
}

/** The minimal byte source that short replies need. */
class SocketSource implements ByteSource {
  available: Buffer = Buffer.alloc(0);
  private ended = false;
  private failure: Error | undefined;
  private wake: () => void = () => undefined;

  constructor(socket: Socket) {
    socket.on("data", (chunk: Buffer) => {
      this.available = this.available.length === 0 ? chunk : Buffer.concat([this.available, chunk]);
      this.wake();
    });
    socket.on("error", (error) => {
      this.failure = error;
    });
    socket.on("close", () => {
      this.ended = true;
      this.wake();
    });
  }

  consume(bytes: number): void {
    this.available = this.available.subarray(bytes);
  }

  async fill(want = this.available.length + 1): Promise<boolean> {
    while (this.available.length < want && !this.ended)
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    if (this.failure) throw this.failure;
    return this.available.length >= want;
  }
}
