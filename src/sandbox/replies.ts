/** What a client is sent: replies and errors, in the agreed dialect. */
import type { BoundOperation, DialectTable } from "../protocol/dialect-table.ts";
import { logCodecs, makeError, STDERR } from "../protocol/log-messages.ts";
import type { OperationName, ReplyOf } from "../protocol/operations.ts";
import { Encoder, toWireText } from "../protocol/wire.ts";
import type { Slices } from "../store/slices.ts";
import { Deadline } from "./deadline.ts";
import type { Sandbox } from "./sandbox.ts";
import type { Transport } from "./upstream/connection.ts";

/** Bytes of a long reply that are written at a time. */
const PIECE = 64 * 1024;

export class Replies {
  table: DialectTable;
  private readonly client: Transport;
  private readonly sandbox: Sandbox;
  private readonly encoder = new Encoder();
  private held: Buffer | undefined;

  /** @param table until the client has greeted */
  constructor(client: Transport, sandbox: Sandbox, table: DialectTable) {
    this.client = client;
    this.sandbox = sandbox;
    this.table = table;
  }

  /** To be sent in front of what is sent next. */
  hold(bytes: Buffer): void {
    this.held = bytes;
  }

  /** The end of the greeting. */
  async welcome(): Promise<void> {
    this.encoder.u64(STDERR.last);
    await this.deliver(this.encoder.finish());
  }

  /** @returns how many bytes it took */
  async reply<N extends OperationName>(operation: BoundOperation<N>, reply: ReplyOf<N>): Promise<number> {
    this.encoder.u64(STDERR.last);
    let sent = 0;
    const writing = operation.reply.write?.(this.encoder, reply);
    if (!writing) operation.reply.encode(this.encoder, reply);
    else if (!writing.next().done) sent = await this.sendAlong(writing);
    const message = this.encoder.finish();
    const { length } = message;
    const waiting = this.deliver(message);
    if (waiting) await waiting;
    return sent + length;
  }

  /**
   * Sends what is being written whenever it has become long.
   *
   * @param writing has been begun
   * @returns how many bytes were sent; the last ones are left
   */
  private async sendAlong(writing: Slices<void>): Promise<number> {
    const { encoder, sandbox } = this;
    let sent = 0;
    do {
      if (encoder.size >= PIECE) {
        const message = encoder.finish();
        sent += message.length;
        await this.deliver(message);
      }
      if (sandbox.pace.due) await sandbox.pace.pause();
    } while (!writing.next().done);
    return sent;
  }

  /**
   * What was half encoded is dropped.
   * @param message text for people
   */
  async error(message: string, status = 1): Promise<void> {
    this.encoder.finish();
    this.encoder.u64(STDERR.error);
    logCodecs(this.table).error.encode(
      this.encoder,
      makeError(this.table.minor, toWireText(message), status),
    );
    await this.deliver(this.encoder.finish());
  }

  /** Disconnects a client that does not read. */
  private deliver(message: Buffer): undefined | Promise<void> {
    const waiting = this.client.write(this.held ? Buffer.concat([this.held, message]) : message);
    this.held = undefined;
    if (!waiting) return undefined;
    const deadline = new Deadline(this.sandbox.profile.limits.requestDeadline, () => {
      this.sandbox.quota.onLimit("requestDeadline");
      this.client.destroy();
    });
    return waiting.finally(() => deadline.clear());
  }
}
