/**
 * One upstream connection for the broker's own requests, many in progress at once: they are written as they
 * come, and the replies are read in the same order. It is opened when first used, and again after it broke.
 */
import type { OperationName, ReplyOf, RequestOf } from "../../protocol/operations.ts";
import type { Feature } from "../../protocol/version.ts";
import { explained, type UpstreamConnection, UpstreamError, UpstreamRefusal } from "./connection.ts";

interface Pending {
  readonly name: OperationName;
  /** Reads what follows the reply, if anything. */
  readonly body: ((connection: UpstreamConnection) => Promise<unknown>) | undefined;
  resolve(reply: unknown): void;
  reject(error: Error): void;
}

/** What was asked on one connection: after it broke, this must not be mixed up with its successor's. */
interface Lane {
  readonly connection: UpstreamConnection;
  readonly pending: Pending[];
  /** It is closed once all is answered. */
  retired: boolean;
}

/** How many connections one request tries: the one that is there may be broken, and a daemon that is restarted may take some more. */
const MOST_TRIES = 5;

export class QueryChannel {
  private readonly open: () => Promise<UpstreamConnection>;
  private readonly answerSeconds: () => number;
  private readonly isOutlived: (connection: UpstreamConnection) => boolean;
  private lane: Promise<Lane> | undefined;
  /** The same, once it has been opened. */
  private opened: Lane | undefined;
  private closed = false;

  /**
   * @param answerSeconds how long upstream may take to answer
   * @param isOutlived whether another daemon listens than the one that a connection leads to; one to that is opened then
   */
  constructor(
    open: () => Promise<UpstreamConnection>,
    answerSeconds: () => number,
    isOutlived: (connection: UpstreamConnection) => boolean = () => false,
  ) {
    this.open = open;
    this.isOutlived = isOutlived;
    this.answerSeconds = answerSeconds;
  }

  /** @throws UpstreamRefusal when upstream answers with an error, UpstreamError when it cannot be asked. */
  ask<N extends OperationName>(name: N, request: RequestOf<N>): Promise<ReplyOf<N>> {
    return this.enqueue(name, request, undefined) as Promise<ReplyOf<N>>;
  }

  /** Like `ask`, for an operation whose reply is followed by bulk data, which `body` reads to its end. */
  read<N extends OperationName, T>(
    name: N,
    request: RequestOf<N>,
    body: (c: UpstreamConnection) => Promise<T>,
  ): Promise<T> {
    return this.enqueue(name, request, body) as Promise<T>;
  }

  /** What was agreed on with upstream. @throws UpstreamError */
  async features(): Promise<ReadonlySet<Feature>> {
    return (await this.usableLane()).connection.table.features;
  }

  /** Ends the connection; what upstream kept for it (temporary roots) is released. */
  close(): void {
    this.closed = true;
    void this.lane?.then(({ connection }) => connection.destroy()).catch(() => undefined);
  }

  private enqueue<N extends OperationName>(
    name: N,
    request: RequestOf<N>,
    body: Pending["body"],
  ): Promise<unknown> {
    const askOn = (lane: Lane): Promise<unknown> => {
      const { connection, pending } = lane;
      return new Promise((resolve, reject) => {
        // First: nobody may wait for the answer to what was not sent.
        void connection.send(name, request);
        pending.push({ name, body, resolve, reject });
        if (pending.length === 1)
          void answer(connection, pending, this.answerSeconds()).then(() => closeIfRetired(lane));
      });
    };
    const { opened } = this;
    return opened && this.isCurrent(opened) ? askOn(opened) : this.usableLane().then(askOn);
  }

  private isCurrent(lane: Lane): boolean {
    return !this.closed && isUsable(lane) && !this.isOutlived(lane.connection);
  }

  /** Many may wait for it at once, and must all get the same. @throws UpstreamError */
  private async usableLane(): Promise<Lane> {
    for (let tries = 0; tries < MOST_TRIES; tries++) {
      if (this.closed) throw new UpstreamError("the sandbox has ended");
      this.lane ??= this.open().then((connection) => ({ connection, pending: [], retired: false }));
      const { lane } = this;
      const opened = await lane.catch((error: Error) => error);
      const isOpen = !(opened instanceof Error);
      if (isOpen && this.isCurrent(opened)) {
        if (this.lane === lane) this.opened = opened;
        return opened;
      }
      // Upstream may have hung up while nothing was asked, which is not an error. But the connection that is
      // forgotten must not be one that somebody else has meanwhile begun to open.
      if (this.lane === lane) this.lane = this.opened = undefined;
      if (!isOpen) throw opened;
      if (isUsable(opened) && !this.closed) retire(opened);
      else opened.connection.destroy();
    }
    throw new UpstreamError(
      `the nix-daemon closed ${MOST_TRIES} connections before it was asked anything; is it being restarted again and again?`,
    );
  }
}

/** What others have asked there, or are just about to, is answered first. */
function retire(lane: Lane): void {
  lane.retired = true;
  setImmediate(() => closeIfRetired(lane));
}

function closeIfRetired({ connection, pending, retired }: Lane): void {
  if (retired && pending.length === 0) connection.destroy();
}

function isUsable({ connection, pending }: Lane): boolean {
  return !connection.destroyed && !(pending.length === 0 && connection.outOfStep);
}

/** Reads replies until none is outstanding. */
async function answer(
  connection: UpstreamConnection,
  pending: Pending[],
  answerSeconds: number,
): Promise<void> {
  const deadline = connection.answerDeadline(answerSeconds);
  try {
    for (let next = pending[0]; next; next = pending[0]) {
      const outcome = await connection.outcome({});
      if (outcome !== undefined) next.reject(new UpstreamRefusal(outcome));
      else {
        const reply = await connection.reply(next.name);
        next.resolve(next.body ? await next.body(connection) : reply);
      }
      pending.shift();
      deadline.alive();
    }
  } catch (error) {
    connection.destroy();
    const message = deadline.passed
      ? `the nix-daemon said nothing for ${answerSeconds} seconds (limits.request_deadline)`
      : "the connection to the nix-daemon broke";
    const broken = new UpstreamError(message, explained(error as Error));
    for (const waiting of pending.splice(0)) waiting.reject(broken);
  } finally {
    deadline.clear();
  }
}
