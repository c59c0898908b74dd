/** A client that does as little as possible itself: requests are written once and sent many times. */
import { connect } from "node:net";
import { type ByteStream, connectStream } from "../src/host/socket.ts";
import type { OperationName, RequestOf } from "../src/protocol/operations.ts";
import { NEWEST_MINOR, versionToWire } from "../src/protocol/version.ts";
import { Encoder } from "../src/protocol/wire.ts";
import { UpstreamConnection } from "../src/sandbox/upstream/connection.ts";
import type { Prepared } from "./requests.ts";

const DIALECT = { minor: NEWEST_MINOR, features: new Set<never>() };
const FRAME = 64 * 1024;
const STDERR_LAST = 0x616c7473;

export class RawClient {
  private readonly stream: ByteStream;
  private readonly connection: UpstreamConnection;

  private constructor(stream: ByteStream, connection: UpstreamConnection) {
    this.stream = stream;
    this.connection = connection;
  }

  /** Connects and shakes hands. */
  static async connect(socket: string): Promise<RawClient> {
    const stream = await connectStream(socket, { patienceMs: 10_000 });
    const connection = await UpstreamConnection.open(async () => stream, DIALECT, "/nix/store");
    return new RawClient(stream, connection);
  }

  close(): void {
    this.stream.destroy();
  }

  /** The bytes of a request. */
  encode<N extends OperationName>(name: N, request: RequestOf<N>): Buffer {
    const encoder = new Encoder();
    const operation = this.connection.table.byName[name];
    encoder.u64(operation.number);
    operation.request.encode(encoder, request);
    return Buffer.from(encoder.finish());
  }

  /** Asks properly: what is measured is that it works. @throws what upstream refuses */
  ask<N extends OperationName>(name: N, request: RequestOf<N>) {
    return this.connection.ask(name, request);
  }

  /** Sends a request, and reads a reply of `length` bytes, "last" included, and throws it away. */
  async exchange(request: Buffer, length: number): Promise<void> {
    const { stream } = this;
    const waiting = stream.write(request);
    if (waiting) await waiting;
    let left = length;
    let first = true;
    for (;;) {
      const { available } = stream;
      if (first && available.length >= 8) {
        if (available.readUInt32LE(0) !== STDERR_LAST) throw new Error("the request was refused");
        first = false;
      }
      const taken = first ? 0 : Math.min(left, available.length);
      if (taken > 0) stream.consume(taken);
      left -= taken;
      if (left === 0) return;
      if (!(await stream.fill())) throw new Error("the connection was closed");
    }
  }

  /** As `exchange`, for bulk. */
  async read(request: Buffer, length: number): Promise<void> {
    this.stream.bulk(true);
    await this.exchange(request, length);
    this.stream.bulk(false);
  }

  /** Adds one file of so many bytes, always the same ones, by AddToStore. */
  async add(name: string, bytes: number): Promise<void> {
    const { stream } = this;
    stream.bulk(true);
    const request = this.encode("AddToStore", {
      name,
      method: "fixed:sha256",
      references: [],
      repair: false,
    });
    await stream.write(request);
    const frame = Buffer.alloc(8 + FRAME, "nix-broker ");
    frame.writeBigUInt64LE(BigInt(FRAME));
    for (let sent = 0; sent < bytes; sent += FRAME) {
      const waiting = stream.write(frame);
      if (waiting) await waiting;
    }
    await stream.write(Buffer.alloc(8));
    const refused = await this.connection.outcome({});
    if (refused !== undefined) throw new Error(refused);
    await this.connection.reply("AddToStore");
    stream.bulk(false);
  }
}

const MAGIC_1 = 0x6e697863;
/** The daemon's first answer: its magic and its version. */
const FIRST_ANSWER = 16;

const numbers = (...values: number[]): Buffer => {
  const encoder = new Encoder();
  for (const value of values) encoder.u64(value);
  return Buffer.from(encoder.finish());
};

const hello = numbers(MAGIC_1, versionToWire(NEWEST_MINOR));
/** No features; no CPU affinity, no reserved space. */
const rest = numbers(0, 0, 0);
const last = numbers(STDERR_LAST);

/**
 * Connects, shakes hands as clients do, makes one request if there is one, and hangs up: with less work in this
 * process than it takes to be a client.
 */
export const visit = (path: string, prepared?: Prepared): Promise<void> =>
  new Promise((resolve, reject) => {
    let received = 0;
    let stage: "hello" | "greeting" | "reply" = "hello";
    const socket = connect({
      path,
      onread: {
        buffer: Buffer.allocUnsafe(4096),
        callback: (count, chunk) => {
          received += count;
          if (stage === "hello" && received >= FIRST_ANSWER) {
            stage = "greeting";
            socket.write(rest);
          }
          const tail = Buffer.from(chunk.buffer, chunk.byteOffset + count - last.length, last.length);
          const greeted = stage === "greeting" && tail.equals(last);
          if (greeted && prepared) {
            stage = "reply";
            received = 0;
            socket.write(prepared.request);
          } else if (greeted || (stage === "reply" && received >= (prepared?.replyBytes ?? 0))) {
            socket.destroy();
            resolve();
          }
          return true;
        },
      },
    });
    socket.on("error", reject);
    socket.write(hello);
  });
