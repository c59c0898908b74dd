/** A connection from beginning to end, with less work in this process than a real client needs. */
import { connect } from "node:net";
import { STDERR } from "../src/protocol/log-messages.ts";
import { NEWEST_MINOR, versionToWire } from "../src/protocol/version.ts";
import { Encoder } from "../src/protocol/wire.ts";
import type { Prepared } from "./requests.ts";

const MAGIC_1 = 0x6e697863;
/** The daemon's first answer: its magic and its version. */
const FIRST_ANSWER = 16;

function numbers(...values: number[]): Buffer {
  const encoder = new Encoder();
  for (const value of values) encoder.u64(value);
  return Buffer.from(encoder.finish());
}

const hello = numbers(MAGIC_1, versionToWire(NEWEST_MINOR));
/** No features; no CPU affinity, no reserved space. */
const rest = numbers(0, 0, 0);
const last = numbers(STDERR.last);

/**
 * Connects, shakes hands as clients do, makes one request if there is one, and hangs up, with less work in
 * this process than a real client needs.
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
