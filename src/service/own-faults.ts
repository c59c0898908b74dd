/**
 * What failed, and nobody waited for. Each request's own work is waited for, and ends no more than its connection; so this is a
 * bug beside them, such as in refilling the pool. Node's answer would be to end the process, for all sandboxes at once, as often
 * as somebody finds out how to bring it about. Nothing that protects depends on it: what a request may do is decided in that
 * request. So it is told, and the service goes on.
 *
 * An error that is thrown where nobody catches it is different: whatever was under way stopped in the middle. The service ends,
 * and is started again.
 */
import type { Log } from "./log.ts";

/** Tests look for this in the log of every service that they stop. */
export const OWN_FAULT = "a bug of nix-broker: something failed that nobody waited for; please report it";

/** @returns the function that ends this */
export function tellRejections(log: Log): () => void {
  const tell = (reason: unknown): void => {
    const error = reason instanceof Error ? (reason.stack ?? reason.message) : String(reason);
    log.error({ error }, OWN_FAULT);
  };
  process.on("unhandledRejection", tell);
  return () => process.off("unhandledRejection", tell);
}
