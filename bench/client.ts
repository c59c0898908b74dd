/** A raw client on a fast connection that does as little as possible: requests are written once and sent many times. */
import { RawClient } from "../lab/raw-client.ts";
import { type ByteStream, connectStream } from "../src/host/socket.ts";
import { STDERR } from "../src/protocol/log-messages.ts";
import type { Prepared } from "./requests.ts";

export type BenchClient = RawClient<ByteStream>;

const FRAME = 64 * 1024;

export async function connectClient(socket: string): Promise<BenchClient> {
  return RawClient.over(await connectStream(socket, { patienceMs: 10_000 }), { features: [] });
}

/** Sends a request, reads the reply and throws it away. @throws Error when it is refused */
export async function exchange({ line }: BenchClient, { request, replyBytes }: Prepared): Promise<void> {
  const waiting = line.write(request);
  if (waiting) await waiting;
  let left = replyBytes;
  let first = true;
  for (;;) {
    const { available } = line;
    if (first && available.length >= 8) {
      if (available.readUInt32LE(0) !== STDERR.last) throw new Error("the request was refused");
      first = false;
    }
    const taken = first ? 0 : Math.min(left, available.length);
    if (taken > 0) line.consume(taken);
    left -= taken;
    if (left === 0) return;
    if (!(await line.fill())) throw new Error("the connection was closed");
  }
}

/** As `exchange`, for bulk. */
export async function read(client: BenchClient, prepared: Prepared): Promise<void> {
  client.line.bulk(true);
  await exchange(client, prepared);
  client.line.bulk(false);
}

/** Adds one file of the given size, always with the same contents, by AddToStore. @throws Error when it is refused */
export async function addFile(client: BenchClient, name: string, bytes: number): Promise<void> {
  const { line } = client;
  line.bulk(true);
  await client.send("AddToStore", { name, method: "fixed:sha256", references: [], repair: false });
  const frame = Buffer.alloc(8 + FRAME, "nix-broker ");
  frame.writeBigUInt64LE(BigInt(FRAME));
  for (let sent = 0; sent < bytes; sent += FRAME) {
    const waiting = line.write(frame);
    if (waiting) await waiting;
  }
  await line.write(Buffer.alloc(8));
  const { error } = await client.outcome();
  if (error !== undefined) throw new Error(error);
  await client.reply("AddToStore");
  line.bulk(false);
}
