/** The transport to a daemon that is not there: what it says is known before it is asked. */
import { STDERR } from "../../src/protocol/log-messages.ts";
import type { Transport } from "../../src/sandbox/upstream/connection.ts";
import { MemorySource, word } from "./memory-stream.ts";

const DAEMON_MAGIC = 0x6478696f;

/** A transport from which a 2.3 daemon's greeting can be read, and then `bytes`. */
export function daemonThatSays(...bytes: Buffer[]): Transport {
  const greeting = [word(DAEMON_MAGIC), word(0x115), word(STDERR.last)];
  return Object.assign(new MemorySource([...greeting, ...bytes]), {
    write: () => undefined,
    writableLength: 0,
    bulk: () => {},
    destroy: () => {},
    onEnd: undefined,
    onClose: undefined,
  });
}
