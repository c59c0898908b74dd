/**
 * The parts of SetOptions that the broker applies itself. Upstream gets no SetOptions at all: the message
 * also carries max-jobs, cores and substitution, so none of it could be passed on without overriding the
 * daemon's own settings.
 */
import type { RequestOf } from "../protocol/operations.ts";
import { fromWireText } from "../protocol/wire.ts";
import type { Exchange } from "./forward/exchange.ts";

export interface ClientOptions {
  /** Whether builds that do not depend on a failed one continue. */
  keepGoing: boolean;
  /** Seconds; `Infinity` for none. */
  maxSilentTime: number;
  /** Seconds; `Infinity` for none. */
  timeout: number;
}

/** Nix has fewer than 300 settings. */
const MOST_NAMED = 300;

export function noOptions(): ClientOptions {
  return { keepGoing: false, maxSilentTime: Number.POSITIVE_INFINITY, timeout: Number.POSITIVE_INFINITY };
}

export async function setOptions(
  { options, detail }: Exchange<"SetOptions">,
  request: RequestOf<"SetOptions">,
): Promise<undefined> {
  const dropped = applyOptions(options, request);
  if (dropped.length > 0) detail.settingsDropped = dropped.slice(0, MOST_NAMED).map(fromWireText);
  if (dropped.length > MOST_NAMED) detail.settingsOmitted = dropped.length - MOST_NAMED;
}

/**
 * Takes what may be.
 * @returns the names of the settings that were left out
 */
function applyOptions(options: ClientOptions, request: RequestOf<"SetOptions">): string[] {
  const timeout = Number(request.overrides.get("timeout") ?? request.overrides.get("build-timeout") ?? 0);
  options.keepGoing = request.keepGoing !== 0;
  options.maxSilentTime = request.maxSilentTime || Number.POSITIVE_INFINITY;
  options.timeout = Number.isSafeInteger(timeout) && timeout > 0 ? timeout : Number.POSITIVE_INFINITY;
  return [...request.overrides.keys()].filter((name) => name !== "timeout" && name !== "build-timeout");
}
