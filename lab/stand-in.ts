/**
 * Daemons that the lab cannot have (Lix, Determinate Nix, the newest Nix), played by a real one with a filter in front: how
 * it greets, and what it answers, can be told to it. What is left alone passes as it is.
 */
import { once } from "node:events";
import { chmodSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { set, string, u64 } from "../src/protocol/codec.ts";
import { compile } from "../src/protocol/compile.ts";
import { type DialectTable, tableFor } from "../src/protocol/dialect-table.ts";
import { FrameWalker } from "../src/protocol/frames.ts";
import { logCodecs, STDERR } from "../src/protocol/log-messages.ts";
import { MessageReader } from "../src/protocol/message-reader.ts";
import type { OperationName, ReplyOf, RequestOf } from "../src/protocol/operations.ts";
import { FEATURES, type Feature, NEWEST_MINOR } from "../src/protocol/version.ts";
import { Encoder } from "../src/protocol/wire.ts";
import { PulledLine } from "./line.ts";
import { RawClient } from "./raw-client.ts";

const MAGIC = 0x6478696f;
const MAGIC_ACCESS_DENIED = 0xab9a9ff0;
const FEATURES_SINCE = 38;
const TEXT_SINCE = 33;
const TRUST_SINCE = 35;
const NOT_TRUSTED = 2;
const MAJOR = 1 << 8;
const LONGEST_MESSAGE = 64 * 1024 * 1024;

const plain = { minor: NEWEST_MINOR, features: new Set<Feature>(), storeDir: "/nix/store" };
const number = compile(u64, plain);
const strings = compile(set(string), plain);

/** A request, by its operation's name. */
export type Asked = {
  [N in OperationName]: { readonly name: N; readonly request: RequestOf<N> };
}[OperationName];

/** A reply to one of them. */
export type OwnReply = { [N in OperationName]: ReplyOf<N> }[OperationName];

export interface StandInOptions {
  /** Its newest protocol version, 1.35 for instance. Default: the newest that there is. */
  readonly newest?: number;
  /** Clients whose protocol is older are hung up on without a word. */
  readonly floor?: number;
  /** The version that it says it has. */
  readonly nixVersion?: string;
  /** What it offers besides the real daemon's features: `answer` has to answer all that has another form with these. */
  readonly features?: readonly Feature[];
  /** Refuses everybody as Determinate Nix does. */
  readonly deniesAccess?: boolean;
  /** A reply of its own in the form that was agreed on, instead of the real daemon's, which may be asked for it. Undefined leaves the request alone. */
  answer?(asked: Asked, daemon: RawClient, agreed: DialectTable): Promise<OwnReply> | undefined;
}

interface Greeted {
  /** The connection to the real daemon. */
  readonly daemon: RawClient;
  /** What was agreed on with the client. */
  readonly table: DialectTable;
}

export class StandIn {
  private readonly server: Server;
  private readonly daemonSocket: string;
  private readonly options: StandInOptions;
  private readonly open = new Set<Socket>();
  /** The minor versions that clients have come with. */
  readonly greeted: number[] = [];

  private constructor(daemonSocket: string, options: StandInOptions) {
    this.daemonSocket = daemonSocket;
    this.options = options;
    this.server = createServer((socket) => void this.serve(socket));
  }

  /**
   * @param path where it listens, on the machine
   * @param daemonSocket of the real daemon, on the machine
   */
  static async start(path: string, daemonSocket: string, options: StandInOptions): Promise<StandIn> {
    const made = new StandIn(daemonSocket, options);
    rmSync(path, { force: true });
    made.server.listen(path);
    await once(made.server, "listening");
    chmodSync(path, 0o666);
    return made;
  }

  async stop(): Promise<void> {
    for (const socket of this.open) socket.destroy();
    this.server.close();
    await once(this.server, "close");
  }

  private async serve(socket: Socket): Promise<void> {
    this.open.add(socket);
    socket.on("error", () => undefined);
    let daemon: RawClient | undefined;
    socket.on("close", () => {
      this.open.delete(socket);
      daemon?.close();
    });
    const client = new PulledLine(socket);
    try {
      const reader = new MessageReader(client, LONGEST_MESSAGE);
      const greeted = await this.greet(client, reader);
      daemon = greeted?.daemon;
      while (greeted && (await this.passOne(client, reader, greeted)));
    } catch {
      // One side has hung up in the middle of something: so does the other.
    } finally {
      socket.destroy();
    }
  }

  /** @returns undefined to hang up */
  private async greet(client: PulledLine, reader: MessageReader): Promise<Greeted | undefined> {
    const { newest = NEWEST_MINOR, floor = 0, nixVersion, features = [], deniesAccess } = this.options;
    const say = (write: (encoder: Encoder) => void): Promise<void> => {
      const encoder = new Encoder();
      write(encoder);
      return client.write(encoder.finish());
    };
    if (deniesAccess) {
      // The real one may answer before; then the client's system may drop the answer.
      await client.fill();
      await say((encoder) => encoder.u64(MAGIC_ACCESS_DENIED));
      return undefined;
    }
    await reader.read(number);
    await say((encoder) => {
      encoder.u64(MAGIC);
      encoder.u64(MAJOR | newest);
    });
    const offered = (await reader.read(number)) - MAJOR;
    this.greeted.push(offered);
    if (offered < floor) return undefined;
    const minor = Math.min(offered, newest);
    const wanted = minor < FEATURES_SINCE ? [] : await reader.read(strings);
    const daemon = await RawClient.connect(this.daemonSocket, {
      user: "nix-broker",
      minor,
      features: FEATURES.filter((feature) => wanted.includes(feature)),
    });
    if (daemon.minor !== minor) throw new Error(`the real daemon speaks 1.${daemon.minor}, not 1.${minor}`);
    if (minor >= FEATURES_SINCE)
      await say((encoder) => strings.encode(encoder, [...daemon.greeting.features, ...features].sort()));
    if ((await reader.read(number)) !== 0) await reader.read(number);
    await reader.read(number);
    await say((encoder) => {
      if (minor >= TEXT_SINCE) encoder.string(nixVersion ?? daemon.greeting.nixVersion ?? "");
      if (minor >= TRUST_SINCE) encoder.u64(NOT_TRUSTED);
      encoder.u64(STDERR.last);
    });
    client.takeSeen();
    daemon.line.takeSeen();
    const own = features.filter((feature) => wanted.includes(feature));
    const agreed = new Set([...daemon.greeting.features, ...own]);
    return { daemon, table: tableFor({ minor, features: agreed, storeDir: plain.storeDir }) };
  }

  /** @returns false at the end of the connection */
  private async passOne(
    client: PulledLine,
    reader: MessageReader,
    { daemon, table }: Greeted,
  ): Promise<boolean> {
    const operationNumber = await reader.readOrEnd(number);
    if (operationNumber === undefined) return false;
    const operation = table.byNumber.get(operationNumber);
    if (!operation) throw new Error(`operation ${operationNumber} is none that the lab knows`);
    const request = await reader.read(operation.request);
    const sent = client.takeSeen();
    const own = this.options.answer?.({ name: operation.name, request } as Asked, daemon, table);
    if (own) {
      const reply = await own;
      daemon.line.takeSeen();
      const encoder = new Encoder();
      encoder.u64(STDERR.last);
      operation.reply.encode(encoder, reply);
      await client.write(encoder.finish());
      return true;
    }
    await daemon.write(sent);
    const body = operation.body === "framed" ? passFrames(client, daemon) : undefined;
    // The real daemon may answer, or hang up, before it has read all of it.
    body?.catch(() => undefined);
    if (operation.body === "nar" || operation.body === "pulled")
      throw new Error(`${operation.name} of 1.${daemon.minor} has a body that is not passed on`);
    const succeeded = await this.passLog(client, daemon);
    if (succeeded) await daemon.read(operation.reply);
    await client.write(daemon.line.takeSeen());
    if (succeeded && operation.replyBody === "nar") {
      await daemon.skipNar();
      await client.write(daemon.line.takeSeen());
    }
    await body;
    return true;
  }

  /** @returns whether the request succeeded */
  private async passLog(client: PulledLine, daemon: RawClient): Promise<boolean> {
    const codecs = logCodecs(daemon.table);
    for (;;) {
      const type = await daemon.read(codecs.number);
      if (type === STDERR.last) return true;
      if (type === STDERR.error) {
        await daemon.read(codecs.error);
        return false;
      }
      if (type === STDERR.next) await daemon.read(codecs.string);
      else if (type === STDERR.startActivity) await daemon.read(codecs.startActivity);
      else if (type === STDERR.stopActivity) await daemon.read(codecs.stopActivity);
      else if (type === STDERR.result) await daemon.read(codecs.result);
      else throw new Error(`the real daemon sent a message of unknown type 0x${type.toString(16)}`);
      await client.write(daemon.line.takeSeen());
    }
  }
}

async function passFrames(client: PulledLine, daemon: RawClient): Promise<void> {
  const walker = new FrameWalker();
  while (!walker.done) {
    if (client.available.length === 0 && !(await client.fill())) throw new Error("hung up in a body");
    client.consume(walker.push(client.available));
    await daemon.write(client.takeSeen());
  }
}
