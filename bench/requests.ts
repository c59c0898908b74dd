/** The requests that are sent many times, and the lengths of the replies, including "last". */
import type { BenchClient } from "./client.ts";

export interface Prepared {
  readonly request: Buffer;
  readonly replyBytes: number;
}

const LAST = 8;

/** Answered by the broker itself. */
export const isValid = (client: BenchClient, path: string): Prepared => ({
  request: client.encode("IsValidPath", { path }),
  replyBytes: LAST + 8,
});

/** Forwarded: the NAR of a file that holds five bytes. */
export const tinyNar = (client: BenchClient, path: string): Prepared => ({
  request: client.encode("NarFromPath", { path }),
  replyBytes: LAST + TINY_NAR_BYTES,
});

/** Eight strings and their lengths: the magic, `(`, `type`, `regular`, `contents`, the text, `)`. */
const TINY_NAR_BYTES = [13, 1, 4, 7, 8, 5, 1].reduce((sum, length) => sum + 8 + Math.ceil(length / 8) * 8, 0);

/** Forwarded: the NAR of a path, whose length its info tells. */
export const nar = async (client: BenchClient, path: string): Promise<Prepared> => {
  const info = await client.must("QueryPathInfo", { path });
  if (info === undefined) throw new Error(`${path} is not in the store`);
  return { request: client.encode("NarFromPath", { path }), replyBytes: LAST + info.narSize };
};
