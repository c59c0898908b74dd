/** How long builds may take: as long as the profile says, or less if the client says so. */
import type { LimitName } from "../../policy/limits.ts";
import { limitTable } from "../../policy/limits.ts";
import { Refusal } from "../refusal.ts";
import type { Exchange } from "./exchange.ts";

export interface Timeout {
  readonly seconds: number;
  /** The error once it has passed. */
  refusal(): Refusal;
}

/** Of the whole request. */
export function buildTimeout(exchange: Exchange): Timeout {
  return shorter(
    exchange,
    "buildTimeout",
    exchange.options.timeout,
    "the build took longer than",
    "--timeout",
  );
}

/** Between two lines of a build's log. */
export function silentTimeout(exchange: Exchange): Timeout {
  const { maxSilentTime } = exchange.options;
  return shorter(
    exchange,
    "silentTimeout",
    maxSilentTime,
    "the build printed nothing for",
    "--max-silent-time",
  );
}

/** @param limit how long upstream gets for a request that is not a build */
export function upstreamTimeout(exchange: Exchange, limit: LimitName): Timeout {
  return shorter(exchange, limit, Number.POSITIVE_INFINITY, "the nix-daemon took longer than", "");
}

function shorter(exchange: Exchange, limit: LimitName, asked: number, what: string, option: string): Timeout {
  const allowed = exchange.sandbox.profile.limits[limit];
  const clients = asked <= allowed;
  const seconds = Math.min(asked, allowed);
  const source = clients ? `the client's ${option}` : `limits.${limitTable[limit].key}`;
  return {
    seconds,
    refusal: () =>
      new Refusal(`${what} ${seconds} seconds (${source})`, {
        verdict: "forward",
        reason: "deadline passed",
        ...(!clients && { limit }),
      }),
  };
}
