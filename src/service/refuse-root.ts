/** Code that serves clients never runs as root, neither as a service nor for one connection. */
import type { Config } from "../config/config.ts";

/** The service must not run like this. */
export class ServiceError extends Error {
  override name = "ServiceError";
}

/**
 * A broker run by root would be trusted by upstream, and a bug in it would be a bug in a root process.
 * @throws ServiceError
 */
export function refuseRoot(config: Config): void {
  if (process.getuid?.() === 0 && !config.upstream.allowTrusted)
    throw new ServiceError(
      "nix-broker does not run as root: start it as its own system user (see docs/install.md), or set upstream.allow_trusted for a private single-user daemon",
    );
}
