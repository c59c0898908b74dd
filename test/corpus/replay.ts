/**
 * Reads both directions of a connection, in step, as a broker between the two would: requests and their bodies
 * off the client's bytes, log messages, replies and theirs off the daemon's. Whatever is read is written
 * again and must come out as it was.
 */
import { type ByteSource, EndOfStream } from "../../src/protocol/byte-stream.ts";
import type { Compiled } from "../../src/protocol/compile.ts";
import { type BoundOperation, type DialectTable, tableFor } from "../../src/protocol/dialect-table.ts";
import { drainFrames, FrameWalker } from "../../src/protocol/frames.ts";
import {
  type ClientGreeting,
  type DaemonGreeting,
  greetClient,
  greetDaemon,
} from "../../src/protocol/handshake.ts";
import { type LogCodecs, logCodecs, STDERR } from "../../src/protocol/log-messages.ts";
import { MessageReader } from "../../src/protocol/message-reader.ts";
import type { OperationName } from "../../src/protocol/operations.ts";
import { NEWEST_MINOR, OLDEST_MINOR } from "../../src/protocol/version.ts";
import { Encoder, WireError } from "../../src/protocol/wire.ts";
import { NarWalker } from "../../src/store/nar-walker.ts";
import { cutAt, MemorySource } from "../protocol/memory-stream.ts";

const LIMIT = 1 << 20;
const STORE_DIR = "/nix/store";
const NONE = new Set<never>();

/** One request that a connection had, and what became of it. */
export interface Exchange {
  readonly operation: OperationName;
  readonly request: unknown;
  /** Undefined when the daemon answered with an error. */
  readonly reply: unknown;
  readonly failed: boolean;
  /** Log messages before the reply. */
  readonly messages: number;
  /** Bytes of the body, as they lay on the wire; empty when it was pulled. */
  readonly body: Buffer;
}

export interface Replay {
  readonly clientGreeting: ClientGreeting;
  readonly daemonGreeting: DaemonGreeting;
  /** What our side of the greeting sent to the daemon. */
  readonly greeted: Buffer;
  readonly exchanges: readonly Exchange[];
}

/** Reading and writing again did not give the same bytes. */
export class NotTheSame extends Error {}

/** One direction, read message by message. */
class Direction {
  readonly source: MemorySource;
  readonly reader: MessageReader;
  private readonly whole: Buffer;

  constructor(whole: Buffer, cuts: readonly number[]) {
    this.whole = whole;
    this.source = new MemorySource(cutAt(whole, cuts));
    this.reader = new MessageReader(this.source, LIMIT);
  }

  /** Bytes that were consumed since `start`. */
  since(start: number): Buffer {
    return this.whole.subarray(start, this.source.position);
  }

  async read<T>(codec: Compiled<T>): Promise<T> {
    const start = this.source.position;
    const value = await this.reader.read(codec);
    const encoder = new Encoder();
    codec.encode(encoder, value);
    const again = encoder.finish();
    if (!again.equals(this.since(start)))
      throw new NotTheSame(`${this.since(start).toString("hex")} came back as ${again.toString("hex")}`);
    return value;
  }

  async atEnd(): Promise<boolean> {
    return this.source.available.length === 0 && !(await this.source.fill());
  }
}

/** @param cuts where the bytes of both directions are cut into pieces */
export async function replay(
  clientBytes: Buffer,
  daemonBytes: Buffer,
  cuts: readonly number[] = [],
): Promise<Replay> {
  const client = new Direction(clientBytes, cuts);
  const daemon = new Direction(daemonBytes, cuts);
  const sent: Buffer[] = [];
  // No daemon of the corpus has any feature.
  const offered = { minor: await minorOf(daemonBytes, cuts), features: NONE };
  const clientGreeting = await greetClient(client.reader, () => undefined, offered, "any");
  const { minor } = clientGreeting;
  const daemonGreeting = await greetDaemon(daemon.reader, (bytes) => sent.push(bytes), {
    minor,
    features: NONE,
  });
  const table = tableFor({ minor, features: NONE, storeDir: STORE_DIR });
  const logs = logCodecs(table);
  await readMessages(client, daemon, logs);
  const exchanges: Exchange[] = [];
  while (!(await client.atEnd())) exchanges.push(await exchange(client, daemon, table, logs));
  if (!(await daemon.atEnd())) throw new WireError("the daemon sent more than was asked for");
  return { clientGreeting, daemonGreeting, greeted: Buffer.concat(sent), exchanges };
}

/** The newest version of the daemon that sent these bytes: a broker knows it before its clients come. */
async function minorOf(bytes: Buffer, cuts: readonly number[]): Promise<number> {
  const daemon = new Direction(bytes, cuts);
  const { daemonMinor } = await greetDaemon(daemon.reader, () => undefined, {
    minor: OLDEST_MINOR,
    features: NONE,
  });
  return Math.min(daemonMinor, NEWEST_MINOR);
}

async function exchange(
  client: Direction,
  daemon: Direction,
  table: DialectTable,
  logs: LogCodecs,
): Promise<Exchange> {
  const number = await client.read(logs.number);
  const row = table.byNumber.get(number);
  if (!row) throw new WireError(`there is no operation ${number}`);
  const request = await client.read(row.request);
  const start = client.source.position;
  await passBody(client.source, row.body);
  const body = client.since(start);
  const { failed, messages } = await readMessages(client, daemon, logs);
  const reply = failed ? undefined : await daemon.read(row.reply);
  if (!failed) await passBody(daemon.source, row.replyBody);
  return { operation: row.name, request, reply, failed, messages, body };
}

async function passBody(source: ByteSource, body: BoundOperation["body"]): Promise<void> {
  if (body === "framed") await drainFrames(source, new FrameWalker());
  if (body !== "nar") return;
  const walker = new NarWalker();
  for (;;) {
    source.consume(walker.push(source.available));
    if (walker.done) return;
    if (!(await source.fill())) throw new EndOfStream();
  }
}

/** Reads up to "done" or an error; what the daemon pulls is taken off the client's bytes. */
async function readMessages(
  client: Direction,
  daemon: Direction,
  logs: LogCodecs,
): Promise<{ failed: boolean; messages: number }> {
  for (let messages = 0; ; messages++) {
    const kind = await daemon.read(logs.number);
    switch (kind) {
      case STDERR.last:
        return { failed: false, messages };
      case STDERR.error:
        await daemon.read(logs.error);
        return { failed: true, messages };
      case STDERR.next:
      case STDERR.write:
        await daemon.read(logs.string);
        break;
      case STDERR.read:
        await daemon.read(logs.number);
        await client.read(logs.string);
        break;
      case STDERR.startActivity:
        await daemon.read(logs.startActivity);
        break;
      case STDERR.stopActivity:
        await daemon.read(logs.stopActivity);
        break;
      case STDERR.result:
        await daemon.read(logs.result);
        break;
      default:
        throw new WireError(`there is no log message ${kind}`);
    }
  }
}
