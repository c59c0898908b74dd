/** What a client is told about errors: our own text, whatever the error says; the rest goes to the audit. */
import { NotInView } from "../policy/view-queries.ts";
import { ByteStreamError, EndOfStream } from "../protocol/byte-stream.ts";
import { WireError } from "../protocol/wire.ts";
import { DerivationError } from "../store/derivation.ts";
import { NarError } from "../store/nar-walker.ts";
import type { Exchange } from "./forward/exchange.ts";
import { Refusal } from "./refusal.ts";
import { UpstreamError, UpstreamRefusal } from "./upstream/connection.ts";

function unreachable(error: UpstreamError): string {
  return `nix-broker cannot reach the nix-daemon: ${error.message}`;
}

/** Errors that the peer can cause, by its bytes or by leaving. */
export function isPeerFault(error: unknown): boolean {
  return (
    error instanceof WireError ||
    error instanceof EndOfStream ||
    error instanceof NarError ||
    error instanceof ByteStreamError
  );
}

/** What a client is told about an error. @throws the error itself if the connection failed */
export function asRefusal(error: unknown, exchange: Exchange): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof NotInView)
    return new Refusal(error.message, { verdict: "answer", reason: "not in the view" });
  if (error instanceof DerivationError)
    return new Refusal(`this is not a derivation that nix-broker can read: ${error.message}`);
  if (error instanceof NarError)
    return new Refusal(`the data is not a NAR: ${error.message}`, { fatal: exchange.body.kind === "nar" });
  if (error instanceof UpstreamRefusal)
    return new Refusal("the nix-daemon refused a request from nix-broker; the reason is in its audit log", {
      verdict: "forward",
      reason: "refused upstream",
      upstreamError: error.message,
    });
  if (error instanceof UpstreamError)
    return new Refusal(unreachable(error), { verdict: "forward", upstreamError: error.explained });
  throw error;
}

/** Why nobody can be served now. */
export function troubleOf(error: Error): Refusal {
  if (error instanceof Refusal) return error;
  if (error instanceof UpstreamError)
    return new Refusal(unreachable(error), { upstreamError: error.explained });
  return new Refusal("nix-broker cannot create the view of this sandbox; the reason is in its audit log", {
    upstreamError: error.message,
  });
}
