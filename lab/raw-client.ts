/**
 * A client of the worker protocol, for tests and the benchmark: it sends whatever it is told to, well-formed
 * or not, as any user. The tests' client reads only when asked to, and keeps the bytes that it got; if it is
 * not asked, it stops reading.
 */
import { EndOfStream } from "../src/protocol/byte-stream.ts";
import type { Compiled } from "../src/protocol/compile.ts";
import { type DialectTable, tableFor } from "../src/protocol/dialect-table.ts";
import { END_OF_FRAMES, frameHeader } from "../src/protocol/frames.ts";
import { type DaemonGreeting, greetDaemon } from "../src/protocol/handshake.ts";
import { type LogCodecs, logCodecs, STDERR } from "../src/protocol/log-messages.ts";
import { MessageReader } from "../src/protocol/message-reader.ts";
import type { OperationName, ReplyOf, RequestOf } from "../src/protocol/operations.ts";
import { FEATURES, type Feature, NEWEST_MINOR } from "../src/protocol/version.ts";
import { Encoder } from "../src/protocol/wire.ts";
import { NarWalker } from "../src/store/nar-walker.ts";
import { heard } from "./heard.ts";
import { connectAs, type Line, PulledLine } from "./line.ts";

export const STORE_DIR = "/nix/store";
const LONGEST_MESSAGE = 64 * 1024 * 1024;

export interface GreetingOptions {
  /** The protocol version and features to ask for; the newest and all by default. */
  readonly minor?: number;
  readonly features?: readonly Feature[];
}

export interface ConnectOptions extends GreetingOptions {
  /** Whom the peer sees: a user of the lab, or a uid. Default `alice`, whom no daemon trusts. */
  readonly user?: string | number;
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

export class RawClient<L extends Line = PulledLine> {
  readonly line: L;
  readonly reader: MessageReader;
  readonly greeting: DaemonGreeting;
  readonly table: DialectTable;
  private readonly logs: LogCodecs;

  private constructor(line: L, reader: MessageReader, greeting: DaemonGreeting) {
    this.line = line;
    this.reader = reader;
    this.greeting = greeting;
    this.table = tableFor({ minor: greeting.minor, features: greeting.features, storeDir: STORE_DIR });
    this.logs = logCodecs(this.table);
  }

  /** Connects and shakes hands. @throws Error with the peer's text when it refuses, EndOfStream when it hangs up. */
  static async connect(path: string, options: ConnectOptions = {}): Promise<RawClient> {
    return RawClient.over(new PulledLine(await connectAs(path, options.user)), options);
  }

  /** Shakes hands on an open connection. @throws as `connect` */
  static async over<L extends Line>(line: L, options: GreetingOptions = {}): Promise<RawClient<L>> {
    const { minor = NEWEST_MINOR, features = FEATURES } = options;
    const reader = new MessageReader(line, LONGEST_MESSAGE);
    const greeting = await greetDaemon(reader, (bytes) => line.write(bytes), {
      minor,
      features: new Set(features),
    });
    const client = new RawClient(line, reader, greeting);
    const { error } = await client.outcome();
    if (error === undefined) return client;
    client.close();
    throw new Error(error);
  }

  get minor(): number {
    return this.greeting.minor;
  }

  /** Sends bytes as they are; resolves when the socket has taken them. */
  async write(bytes: Buffer): Promise<void> {
    await this.line.write(bytes);
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
    return this.read(this.table.byName[name].reply);
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
    // Peers may answer before the body is sent: both happen at the same time.
    const sending = kind === "pulled" || kind === "none" ? undefined : this.sendBody(kind, body);
    const { error, log } = await this.outcome(kind === "pulled" ? iterator : undefined);
    await sending;
    if (error !== undefined) return { error, reply: undefined, log };
    return { error: undefined, reply: await this.reply(name), log };
  }

  /** Like `ask`, for requests that must succeed. @throws Error with the peer's text */
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

  /** Builds one output and returns the error, if any. */
  build(derivedPath: string, mode = 0): Promise<{ error: string | undefined; log: readonly LogEntry[] }> {
    return heard(this.ask("BuildPaths", { paths: [derivedPath], mode }));
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
      const taken = walker.push(this.line.available);
      onSlice?.(this.line.available.subarray(0, taken));
      this.line.consume(taken);
      if (walker.done) return walker.length;
      if (!(await this.line.fill())) throw new EndOfStream();
    }
  }

  /** Waits for the peer to hang up. @returns the bytes that came before */
  async untilClosed(): Promise<Buffer> {
    while (await this.line.fill());
    return this.line.available;
  }

  close(): void {
    this.line.destroy();
  }

  async read<T>(codec: Compiled<T>): Promise<T> {
    return this.reader.read(codec);
  }

  private async sendBody(kind: "framed" | "nar", body: BodyPieces): Promise<void> {
    for await (const piece of body) {
      if (this.line.gone) return;
      // An empty frame would be the end.
      if (piece.length === 0) continue;
      if (kind === "framed") void this.line.write(frameHeader(piece.length));
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

/** Everything that a client was sent, as one text to search in. */
export function toldText(answer: { error?: string | undefined; log: readonly LogEntry[] }): string {
  return [...answer.log.map((entry) => entry.text), answer.error ?? ""].join("\n");
}
