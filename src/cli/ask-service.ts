/** How commands reach the running service. */
import { loadConfig } from "../config/load.ts";
import type { ControlRequestName, ControlRequests } from "../service/control/messages.ts";

/** The service cannot be reached: exit code 3. */
export class UnreachableError extends Error {
  override readonly name = "UnreachableError";
}

/**
 * Asks the service that the configuration describes.
 *
 * @param config the file that `--config` names
 * @throws UnreachableError with advice; ControlError when the service refuses; ConfigError
 */
export async function askRunningService<Name extends ControlRequestName>(
  config: string | undefined,
  name: Name,
  asks: ControlRequests[Name]["asks"],
): Promise<ControlRequests[Name]["answer"]> {
  const { controlDir } = (await loadConfig({ path: config })).runtime;
  // Only now: help and errors of usage need no channel.
  const { askService, ControlError } = await import("../service/control/control.ts");
  try {
    return await askService(controlDir, name, asks);
  } catch (error) {
    if (error instanceof ControlError && error.code === "unreachable")
      throw new UnreachableError(error.message, { cause: error });
    throw error;
  }
}
