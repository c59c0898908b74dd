/** One connection to the real nix-daemon: requests out, log messages and replies in. */
import type { ByteSink, ByteSource } from "../../protocol/byte-stream.ts";
import { ByteStreamError, EndOfStream } from "../../protocol/byte-stream.ts";
import type { Compiled } from "../../protocol/compile.ts";
import { type DialectTable, tableFor } from "../../protocol/dialect-table.ts";
import { type DaemonGreeting, greetDaemon } from "../../protocol/handshake.ts";
import { type Fields, type LogCodecs, logCodecs, STDERR } from "../../protocol/log-messages.ts";
import { MessageReader } from "../../protocol/message-reader.ts";
import type { OperationName, ReplyOf, RequestOf } from "../../protocol/operations.ts";
import type { Dialect } from "../../protocol/version.ts";
import { Encoder, fromWireText, WireError } from "../../protocol/wire.ts";
import type { Pace } from "../../store/slices.ts";
import { Deadline } from "../deadline.ts";

/** The bytes to and from a peer. `host/byte-stream.ts` is one. */
export interface Transport extends ByteSource, ByteSink {
  readonly writableLength: number;
  bulk(on: boolean): void;
  destroy(error?: Error): void;
  /** Called when the peer will send no more. */
  onEnd: (() => void) | undefined;
  onClose: ((error?: Error) => void) | undefined;
}

/** Opens a new connection to upstream. @throws the system's error. */
export type Connect = () => Promise<Transport>;

/** A log message from upstream. Texts are byte strings of the wire. */
export type LogMessage =
  | { readonly kind: "text"; readonly text: string }
  | {
      readonly kind: "start";
      readonly id: bigint;
      readonly type: number;
      readonly text: string;
      readonly fields: Fields;
    }
  | { readonly kind: "stop"; readonly id: bigint }
  | { readonly kind: "result"; readonly id: bigint; readonly type: number; readonly fields: Fields };

/** How a request ended: undefined if upstream succeeded, otherwise upstream's error, as text for people. */
export type Outcome = string | undefined;

/** What upstream may ask and report before it answers. */
export interface Listener {
  log?(message: LogMessage): void;
  /** Upstream asks for at most `length` bytes of the body (protocol 1.21 and 1.22). */
  pull?(length: number): Promise<void>;
}

/** Upstream cannot be reached, or what it sends makes no sense. The message is ours, and clients may read it. */
export class UpstreamError extends Error {
  override name = "UpstreamError";
  /** The message, plus what upstream or the system said, which is not for clients. */
  readonly explained: string;

  constructor(message: string, words?: string, options?: ErrorOptions) {
    super(message, options);
    this.explained = words === undefined ? message : `${message}: ${words}`;
  }
}

/** Upstream accepts connections and ends them without a word: that is how it refuses users and versions. */
export class UpstreamHungUp extends UpstreamError {
  override name = "UpstreamHungUp";
}

export function explained(error: Error): string {
  return error instanceof UpstreamError ? error.explained : error.message;
}

/** Messages from upstream are limited, too: the path names of a whole store fit. Bytes. */
export const LONGEST_REPLY = 512 * 1024 * 1024;
/** Builders write these, possibly without line ends. Bytes. */
const LONGEST_LOG_MESSAGE = 16 * 1024 * 1024;
/** What is kept of one text in them, for they are held in memory, for many builds at once. Bytes. */
const LONGEST_LOG_TEXT = 256 * 1024;
/** Of the pieces that are written as one. Bytes. */
const MOST_GATHERED = 32 * 1024;
/** Of a long request, what is written at a time. Bytes. */
const PIECE = 64 * 1024;
/** Both ends can hold this many questions and answers in their sockets' buffers. */
const ASKED_AT_ONCE = 64;
/**
 * A daemon greets as soon as it has forked. Shorter than the time clients have for their own greeting, so
 * that they can be told.
 */
export const OPEN_SECONDS = 20;

/** The system's words for a peer that has hung up: without having read, or before it was written to. */
const HUNG_UP: ReadonlySet<string> = new Set(["ECONNRESET", "EPIPE"]);

function saysHungUp(error: unknown): boolean {
  return error instanceof EndOfStream || (error instanceof ByteStreamError && HUNG_UP.has(error.code));
}

export class UpstreamConnection {
  readonly greeting: DaemonGreeting;
  readonly table: DialectTable;
  readonly transport: Transport;
  readonly reader: MessageReader;
  /** When it was opened, by `performance.now()`. */
  readonly opened = performance.now();
  /** Set once it was given to a sandbox; such a connection is never given to another. */
  destroyed = false;
  /** It was asked what caches have: its process remembers what they lack, and the next client may know better. */
  remembersCaches = false;
  /** Of the daemon that it was opened to: see `PoolOptions.generation`. */
  generation: string | undefined;
  private ended = false;
  private readonly logs: LogCodecs;
  private readonly logReader: MessageReader;
  private readonly encoder = new Encoder();
  private gathering = false;

  private constructor(
    transport: Transport,
    reader: MessageReader,
    greeting: DaemonGreeting,
    storeDir: string,
  ) {
    this.transport = transport;
    this.reader = reader;
    this.greeting = greeting;
    this.table = tableFor({ minor: greeting.minor, features: greeting.features, storeDir });
    this.logs = logCodecs(this.table);
    this.logReader = new MessageReader(transport, LONGEST_LOG_MESSAGE, { longestKept: LONGEST_LOG_TEXT });
    transport.onEnd = () => {
      this.ended = true;
      this.onClose?.();
    };
    transport.onClose = () => {
      this.destroyed = true;
      this.onClose?.();
    };
  }

  /** Called when upstream has hung up, possibly twice. */
  onClose: (() => void) | undefined;

  /**
   * Connects and shakes hands.
   * @throws UpstreamError when upstream is not there, is silent, refuses this user, or is not a nix-daemon.
   */
  static async open(connect: Connect, dialect: Dialect, storeDir: string): Promise<UpstreamConnection> {
    let transport: Transport;
    try {
      transport = await connect();
    } catch (error) {
      const { code = "it is not there", message } = error as NodeJS.ErrnoException;
      throw new UpstreamError(`cannot connect to the nix-daemon: ${code}`, message);
    }
    const deadline = new Deadline(OPEN_SECONDS, () => transport.destroy());
    try {
      const reader = new MessageReader(transport, LONGEST_REPLY);
      const greeting = await greetDaemon(reader, (message) => transport.write(message), dialect);
      const connection = new UpstreamConnection(transport, reader, greeting, storeDir);
      const outcome = await connection.outcome({});
      if (outcome !== undefined) throw new UpstreamError("the nix-daemon refused the connection", outcome);
      return connection;
    } catch (error) {
      transport.destroy();
      if (deadline.passed)
        throw new UpstreamError(
          `the nix-daemon said nothing for ${OPEN_SECONDS} seconds during the greeting; is it stopped, or overloaded?`,
        );
      if (saysHungUp(error) || (error instanceof UpstreamError && saysHungUp(error.cause)))
        throw new UpstreamHungUp(
          "the nix-daemon closed the connection during the greeting; is this user among its allowed-users, and not a build user?",
        );
      throw error instanceof WireError ? new UpstreamError(error.message) : error;
    } finally {
      deadline.clear();
    }
  }

  /** This connection is unusable: upstream has hung up, or bytes arrived although nothing was asked. */
  get outOfStep(): boolean {
    return this.ended || this.transport.available.length > 0;
  }

  /** Writes a request; sending its body, if any, is up to the caller. @throws Error, and is destroyed, when it cannot be encoded */
  send<N extends OperationName>(name: N, request: RequestOf<N>): undefined | Promise<void> {
    const operation = this.table.byName[name];
    try {
      this.encoder.u64(operation.number);
      operation.request.encode(this.encoder, request);
    } catch (error) {
      // The next request would follow half of this one.
      this.destroy();
      throw error;
    }
    return this.gathering ? undefined : this.transport.write(this.encoder.finish());
  }

  /**
   * As `send`, for a request that may be long: it goes out in pieces, and others have their turns meanwhile.
   * @throws UpstreamError
   */
  async sendInPieces<N extends OperationName>(name: N, request: RequestOf<N>, pace: Pace): Promise<void> {
    const { number, request: codec } = this.table.byName[name];
    if (!codec.write) return this.send(name, request);
    this.encoder.u64(number);
    try {
      for (const _ of codec.write(this.encoder, request)) {
        if (this.encoder.size >= PIECE) await this.pass(this.encoder.finish());
        if (pace.due) await pace.pause();
      }
    } catch (error) {
      this.destroy();
      throw error;
    }
    if (!this.gathering) await this.pass(this.encoder.finish());
  }

  /** Until `flush`, requests and short pieces of bulk data are held, to be written as one: each write costs both ends. */
  gather(): void {
    this.gathering = true;
  }

  /** Writes what was gathered. Returns as `write` does. */
  flush(): undefined | Promise<void> {
    this.gathering = false;
    return this.encoder.size > 0 ? this.pass(this.encoder.finish()) : undefined;
  }

  /** Reads up to upstream's "done" or error. @throws UpstreamError when it breaks off; what `listener.pull` throws. */
  async outcome(listener: Listener): Promise<Outcome> {
    for (;;) {
      const type = await this.readLog(this.logs.number);
      switch (type) {
        case STDERR.last:
          return undefined;
        case STDERR.error:
          return fromWireText((await this.readLog(this.logs.error)).message);
        // Read first: `log?.(await …)` would leave the message unread if nobody listens.
        case STDERR.next: {
          const text = await this.readLog(this.logs.string);
          listener.log?.({ kind: "text", text });
          break;
        }
        case STDERR.startActivity: {
          const start = await this.readLog(this.logs.startActivity);
          listener.log?.({ kind: "start", ...start });
          break;
        }
        case STDERR.stopActivity: {
          const stop = await this.readLog(this.logs.stopActivity);
          listener.log?.({ kind: "stop", ...stop });
          break;
        }
        case STDERR.result: {
          const result = await this.readLog(this.logs.result);
          listener.log?.({ kind: "result", ...result });
          break;
        }
        case STDERR.read: {
          const length = await this.readLog(this.logs.number);
          if (!listener.pull) throw new UpstreamError("it asked for data that no request has");
          await listener.pull(length);
          break;
        }
        default:
          throw new UpstreamError(`it sent a message of unknown type 0x${type.toString(16)}`);
      }
    }
  }

  /** Hangs up if upstream sends nothing for this many seconds. To be cleared once it has answered. */
  answerDeadline(seconds: number): Deadline {
    return new Deadline(seconds, () =>
      this.transport.destroy(new Error(`it said nothing for ${seconds} seconds`)),
    );
  }

  /** Reads the reply; returns itself what has arrived. @throws UpstreamError when it breaks off */
  reply<N extends OperationName>(name: N): ReplyOf<N> | Promise<ReplyOf<N>> {
    return this.read<ReplyOf<N>>(this.table.byName[name].reply);
  }

  /**
   * A request without bodies, from sending to reply.
   * @param seconds how long upstream may take; by default the caller takes care of that
   * @param pace for a request that may be long
   * @throws UpstreamRefusal with upstream's text when it answers with an error.
   */
  async ask<N extends OperationName>(
    name: N,
    request: RequestOf<N>,
    seconds = Number.POSITIVE_INFINITY,
    listener: Listener = {},
    pace?: Pace,
  ): Promise<ReplyOf<N>> {
    const deadline = this.answerDeadline(seconds);
    try {
      if (pace) await this.sendInPieces(name, request, pace);
      else void this.send(name, request);
      const outcome = await this.outcome(listener);
      if (outcome !== undefined) throw new UpstreamRefusal(outcome);
      return await this.reply(name);
    } finally {
      deadline.clear();
    }
  }

  /**
   * Asks the same about many, without waiting for each answer before the next question.
   * @throws UpstreamRefusal with upstream's text when it answers one with an error
   */
  async askEach<N extends OperationName>(name: N, requests: readonly RequestOf<N>[]): Promise<ReplyOf<N>[]> {
    const replies: ReplyOf<N>[] = [];
    let refused: string | undefined;
    for (let i = 0; i < requests.length; i += ASKED_AT_ONCE) {
      const piece = requests.slice(i, i + ASKED_AT_ONCE);
      for (const request of piece) void this.send(name, request);
      for (const _ of piece) {
        const outcome = await this.outcome({});
        if (outcome === undefined) replies.push(await this.reply(name));
        else refused ??= outcome;
      }
    }
    if (refused !== undefined) throw new UpstreamRefusal(refused);
    return replies;
  }

  /** Passes bulk data on. The promise rejects with UpstreamError. */
  write(bytes: Buffer): undefined | Promise<void> {
    if (this.gathering) {
      if (this.encoder.size + bytes.length <= MOST_GATHERED) {
        this.encoder.raw(bytes);
        return undefined;
      }
      // In order: whoever waits for the second waits for the first.
      void this.flush();
    }
    // For the larger send buffer: upstream hashes while it reads, and takes the data in bursts.
    this.transport.bulk(true);
    return this.pass(bytes);
  }

  private pass(bytes: Buffer): undefined | Promise<void> {
    const passed = this.transport.write(bytes)?.catch((error: Error) => {
      throw new UpstreamError("the connection broke", error.message);
    });
    // Whoever does not wait for this is told by the next write, or by the outcome.
    passed?.catch(() => undefined);
    return passed;
  }

  /** Waits for more of the bulk data that follows a reply. @throws UpstreamError at the end of the stream */
  async fill(): Promise<void> {
    const more = await this.transport.fill().catch((error: Error) => {
      throw new UpstreamError("the connection broke", error.message);
    });
    if (!more) throw new UpstreamError("it closed the connection in the middle of a reply");
  }

  private readLog<T>(codec: Compiled<T>): T | Promise<T> {
    return this.read(codec, this.logReader);
  }

  private read<T>(codec: Compiled<T>, reader = this.reader): T | Promise<T> {
    try {
      const message = reader.read(codec);
      return message instanceof Promise ? message.catch((error) => this.cannotRead(error)) : message;
    } catch (error) {
      return this.cannotRead(error as Error);
    }
  }

  /** @throws UpstreamError always */
  private cannotRead(error: Error): never {
    this.destroy();
    throw new UpstreamError("what it says cannot be read", explained(error), { cause: error });
  }

  destroy(): void {
    this.destroyed = true;
    this.transport.destroy();
  }
}

/** Upstream answered a request with an error; the message is upstream's text, not for clients. */
export class UpstreamRefusal extends Error {
  override name = "UpstreamRefusal";
}
