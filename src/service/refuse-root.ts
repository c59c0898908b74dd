/** What serves clients never runs as root, whether as a service or for one connection. */
import type { Config } from "../config/config.ts";

/** The service may not run so. */
export class ServiceError extends Error {
  override name = "ServiceError";
}

/** A broker that root runs would be trusted by upstream, and a fault of it would be a fault of root's. @throws ServiceError */
export function refuseRoot(config: Config): void {
  if (process.getuid?.() === 0 && !config.upstream.allowTrusted)
    throw new ServiceError(
      "nix-broker does not run as root: start it as its own system user (see docs/install.md), or set upstream.allow_trusted for a private single-user daemon",
    );
}
