/** Questions that users can have asked as often as they like: those of one user are answered one after the other. */
import { LinkError } from "../contract/link-error.ts";

/** While so many of a user's wait, more are refused. */
const MAX_WAITING = 256;

interface Queue {
  tail: Promise<unknown>;
  waiting: number;
}

export class Questions {
  private readonly queues = new Map<number, Queue>();

  /** @throws LinkError `limit`, and what `answer` throws */
  async ask<T>(uid: number, answer: () => Promise<T>): Promise<T> {
    const queue = this.queues.get(uid) ?? { tail: Promise.resolve(), waiting: 0 };
    if (queue.waiting >= MAX_WAITING)
      throw new LinkError("limit", `too many connections of user ${uid} are waiting to be identified`);
    this.queues.set(uid, queue);
    queue.waiting++;
    const answered = queue.tail.then(answer);
    queue.tail = answered.catch(() => undefined);
    try {
      return await answered;
    } finally {
      if (--queue.waiting === 0) this.queues.delete(uid);
    }
  }
}
