/** Words of ours in what a client shows people while it waits. */
import { logCodecs, STDERR } from "../../protocol/log-messages.ts";
import { Encoder, toWireText } from "../../protocol/wire.ts";
import type { Exchange } from "./exchange.ts";

/** A line for people, unless the client does not read. */
export function say({ client, table, sandbox }: Exchange, line: string): void {
  const { limits, innerLogs } = sandbox.profile;
  if (innerLogs === "none" || client.writableLength > limits.logBytes) return;
  const encoder = new Encoder();
  encoder.u64(STDERR.next);
  logCodecs(table).string.encode(encoder, toWireText(`${line}\n`));
  void client.write(encoder.finish());
}
