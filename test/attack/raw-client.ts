/**
 * A client of the worker protocol for tests: it says what it is told to, well-formed or not, as any user, and
 * keeps the bytes that it got. It reads only when it is asked to: one that is not, stops reading.
 */
import { once } from "node:events";
import net from "node:net";
import { labUser } from "../../lab/system.ts";
import { type ByteSource, EndOfStream } from "../../src/protocol/byte-stream.ts";
import type { Compiled } from "../../src/protocol/compile.ts";
import { type DialectTable, tableFor } from "../../src/protocol/dialect-table.ts";
import { END_OF_FRAMES, frameHeader } from "../../src/protocol/frames.ts";
import { type DaemonGreeting, greetDaemon } from "../../src/protocol/handshake.ts";
import { type LogCodecs, logCodecs, STDERR } from "../../src/protocol/log-messages.ts";
import { MessageReader } from "../../src/protocol/message-reader.ts";
import type { OperationName, ReplyOf, RequestOf } from "../../src/protocol/operations.ts";
import { FEATURES, type Feature, NEWEST_MINOR } from "../../src/protocol/version.ts";
import { Encoder } from "../../src/protocol/wire.ts";
import { NarWalker } from "../../src/store/nar-walker.ts";

export const STORE_DIR = "/nix/store";
const LONGEST_MESSAGE = 64 * 1024 * 1024;

/** The bytes of a socket, read when somebody wants them. */
class PulledSource implements ByteSource {
  available: Buffer = Buffer.alloc(0);
  /** All bytes that were consumed since it was emptied last; undefined keeps none. */
  seen: Buffer[] | undefined = [];
  private readonly socket: net.Socket;
  private wake: () => void = () => undefined;

  constructor(socket: net.Socket) {
    this.socket = socket;
    for (const event of ["readable", "end", "close"]) socket.on(event, () => this.wake());
  }

  consume(bytes: number): void {
    this.seen?.push(Buffer.from(this.available.subarray(0, bytes)));
    this.available = this.available.subarray(bytes);
  }

  async fill(): Promise<boolean> {
    for (;;) {
      const chunk = this.socket.read() as Buffer | null;
      if (chunk) {
        this.available = this.available.length === 0 ? chunk : Buffer.concat([this.available, chunk]);
        return true;
      }
      if (this.socket.readableEnded || this.socket.destroyed) return false;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }
}

export interface ConnectOptions {
  /** Whom the peer sees: a user of the lab, or a uid. Default `alice`, whom no daemon trusts. */
  readonly user?: string | number;
  /** The protocol version and features to ask for; the newest and all by default. */
  readonly minor?: number;
  readonly features?: readonly Feature[];
}

/** A log message, as texts. */
export interface LogEntry {
  readonly kind: "text" | "start" | "stop" | "result";
  /** All the strings in it, joined. */
  readonly text: string;
}

export type Answer<N extends OperationName> =
  | { readonly error: undefined; readonly reply: ReplyOf<N>; readonly log: readonly LogEntry[] }
  | { readonly error: string; readonly reply: undefined; readonly log: readonly LogEntry[] };

export type BodyPieces = Iterable<Buffer> | AsyncIterable<Buffer>;

/** Connects to a Unix socket as a user of the lab, without a word. */
export async function connectAs(path: string, user: string | number = "alice"): Promise<net.Socket> {
  const uid = typeof user === "number" ? user : labUser(user).uid;
  let socket: net.Socket;
  // The kernel notes the effective user at connect(2), which Node calls at once for such sockets.
  process.seteuid?.(uid);
  try {
    socket = net.connect({ path });
  } finally {
    process.seteuid?.(0);
  }
  await once(socket, "connect");
  // Later ones show as the end of the stream.
  socket.on("error", () => undefined);
  return socket;
}

export class RawClient {
  readonly socket: net.Socket;
  readonly reader: MessageReader;
  readonly greeting: DaemonGreeting;
  readonly table: DialectTable;
  private readonly source: PulledSource;
  private readonly logs: LogCodecs;

  private constructor(
    socket: net.Socket,
    source: PulledSource,
    reader: MessageReader,
    greeting: DaemonGreeting,
  ) {
    this.socket = socket;
    this.source = source;
    this.reader = reader;
    this.greeting = greeting;
    this.table = tableFor({ minor: greeting.minor, features: greeting.features, storeDir: STORE_DIR });
    this.logs = logCodecs(this.table);
  }

  /** Connects and shakes hands. @throws Error with the peer's text when it refuses, EndOfStream when it hangs up. */
  static async connect(path: string, options: ConnectOptions = {}): Promise<RawClient> {
    const { minor = NEWEST_MINOR, features = FEATURES } = options;
    const socket = await connectAs(path, options.user);
    const source = new PulledSource(socket);
    const reader = new MessageReader(source, LONGEST_MESSAGE);
    const greeting = await greetDaemon(reader, (bytes) => socket.write(bytes), {
      minor,
      features: new Set(features),
    });
    const client = new RawClient(socket, source, reader, greeting);
    const { error } = await client.outcome();
    if (error === undefined) return client;
    client.close();
    throw new Error(error);
  }

  get minor(): number {
    return this.greeting.minor;
  }

  /** Bytes as they are; resolves when the socket has taken them. */
  async write(bytes: Buffer): Promise<void> {
    if (this.socket.destroyed) return;
    await new Promise<void>((resolve) => {
      this.socket.write(bytes, () => resolve());
    });
  }

  /** The bytes of a request, its number first. */
  encode<N extends OperationName>(name: N, request: RequestOf<N>): Buffer {
    const encoder = new Encoder();
    encoder.u64(this.table.byName[name].number);
    this.table.byName[name].request.encode(encoder, request);
    return encoder.finish();
  }

  send<N extends OperationName>(name: N, request: RequestOf<N>): Promise<void> {
    return this.write(this.encode(name, request));
  }

  /** Reads up to "done" or an error. `pieces` are what is handed out when the peer asks for data. */
  async outcome(
    pieces?: AsyncIterator<Buffer> | Iterator<Buffer>,
  ): Promise<{ error?: string; log: LogEntry[] }> {
    const log: LogEntry[] = [];
    for (;;) {
      const type = await this.read(this.logs.number);
      if (type === STDERR.last) return { log };
      if (type === STDERR.error) return { error: (await this.read(this.logs.error)).message, log };
      if (type === STDERR.read) await this.handOut(await this.read(this.logs.number), pieces);
      else log.push(await this.logEntry(type));
    }
  }

  reply<N extends OperationName>(name: N): Promise<ReplyOf<N>> {
    return this.read(this.table.byName[name].reply) as Promise<ReplyOf<N>>;
  }

  /** A whole request, body included, from sending to reply. */
  async ask<N extends OperationName>(
    name: N,
    request: RequestOf<N>,
    body: BodyPieces = [],
  ): Promise<Answer<N>> {
    const kind = this.table.byName[name].body;
    const iterator = Symbol.asyncIterator in body ? body[Symbol.asyncIterator]() : body[Symbol.iterator]();
    await this.send(name, request);
    // Peers may answer before the body is out: both go on at once.
    const sending = kind === "pulled" || kind === "none" ? undefined : this.sendBody(kind, body);
    const { error, log } = await this.outcome(kind === "pulled" ? iterator : undefined);
    await sending;
    if (error !== undefined) return { error, reply: undefined, log };
    return { error: undefined, reply: await this.reply(name), log };
  }

  /** As `ask`, for what must succeed. @throws Error with the peer's text */
  async must<N extends OperationName>(
    name: N,
    request: RequestOf<N>,
    body: BodyPieces = [],
  ): Promise<ReplyOf<N>> {
    const answer = await this.ask(name, request, body);
    if (answer.error !== undefined) throw new Error(`${name}: ${answer.error}`);
    return answer.reply;
  }

  /** Adds a text in the form that this version has. */
  async addText(
    name: string,
    text: Buffer | string,
    references: readonly string[] = [],
  ): Promise<{ path: string; error: string | undefined }> {
    const contents = typeof text === "string" ? Buffer.from(text) : text;
    const answer =
      this.minor >= 25
        ? await this.ask(
            "AddToStore",
            { name, method: "text:sha256", references: [...references], repair: false },
            [contents],
          )
        : await this.ask("AddTextToStore", {
            name,
            text: contents.toString("latin1"),
            references: [...references],
          });
    return { path: answer.reply?.path ?? "", error: answer.error };
  }

  /** Builds one output and tells the error, if any. */
  async build(
    derivedPath: string,
    mode = 0,
  ): Promise<{ error: string | undefined; log: readonly LogEntry[] }> {
    const { error, log } = await this.ask("BuildPaths", { paths: [derivedPath], mode });
    return { error, log };
  }

  /** The bytes of the NAR that follows the reply to NarFromPath. @throws Error with the peer's text */
  async nar(path: string): Promise<Buffer> {
    await this.must("NarFromPath", { path });
    const pieces: Buffer[] = [];
    await this.skipNar((slice) => pieces.push(Buffer.from(slice)));
    return Buffer.concat(pieces);
  }

  /** Reads a NAR off the connection. @returns its length */
  async skipNar(onSlice?: (slice: Buffer) => void): Promise<number> {
    const walker = new NarWalker();
    for (;;) {
      const taken = walker.push(this.source.available);
      onSlice?.(this.source.available.subarray(0, taken));
      this.source.consume(taken);
      if (walker.done) return walker.length;
      if (!(await this.source.fill())) throw new EndOfStream();
    }
  }

  /** What was consumed since the last call. */
  takeSeen(): Buffer {
    const seen = Buffer.concat(this.source.seen ?? []);
    this.source.seen = [];
    return seen;
  }

  /** For bulk transfers: what comes is not kept. */
  keepNothing(): void {
    this.source.seen = undefined;
  }

  /** Waits for the peer to hang up. @returns the bytes that came before */
  async untilClosed(): Promise<Buffer> {
    while (await this.source.fill());
    return this.source.available;
  }

  close(): void {
    this.socket.destroy();
  }

  read<T>(codec: Compiled<T>): Promise<T> {
    return this.reader.read(codec);
  }

  private async sendBody(kind: "framed" | "nar", body: BodyPieces): Promise<void> {
    for await (const piece of body) {
      if (this.socket.destroyed) return;
      // An empty frame would be the end.
      if (piece.length === 0) continue;
      if (kind === "framed") this.socket.write(frameHeader(piece.length));
      await this.write(piece);
    }
    if (kind === "framed") await this.write(END_OF_FRAMES);
  }

  private async handOut(
    length: number,
    pieces: AsyncIterator<Buffer> | Iterator<Buffer> | undefined,
  ): Promise<void> {
    const next = await pieces?.next();
    if (!next || next.done) throw new Error(`the peer asks for ${length} bytes more than there are`);
    const encoder = new Encoder();
    encoder.bytes(next.value);
    await this.write(encoder.finish());
  }

  private async logEntry(type: number): Promise<LogEntry> {
    const joined = (text: string, fields: readonly { value: bigint | string }[]) =>
      [text, ...fields.map((field) => String(field.value))].join(" ");
    switch (type) {
      case STDERR.next:
        return { kind: "text", text: await this.read(this.logs.string) };
      case STDERR.startActivity: {
        const { text, fields } = await this.read(this.logs.startActivity);
        return { kind: "start", text: joined(text, fields) };
      }
      case STDERR.stopActivity:
        return { kind: "stop", text: String((await this.read(this.logs.stopActivity)).id) };
      case STDERR.result: {
        const { fields } = await this.read(this.logs.result);
        return { kind: "result", text: joined("", fields) };
      }
      default:
        throw new Error(`the peer sent a message of unknown type 0x${type.toString(16)}`);
    }
  }
}

/** Everything that a client was told, as one text to search in. */
export function toldText(answer: { error?: string | undefined; log: readonly LogEntry[] }): string {
  return [...answer.log.map((entry) => entry.text), answer.error ?? ""].join("\n");
}
