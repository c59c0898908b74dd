/** Whether what the service needs can be reached: the real daemon, and the linker. */
import { existsSync } from "node:fs";
import type { Config } from "../config/config.ts";
import { explained } from "../sandbox/upstream/connection.ts";
import type { Broker } from "./broker.ts";
import { LinkerClient } from "./builds/linker-client.ts";
import type { LinkerReport } from "./control/messages.ts";

const PATIENCE_MS = 2000;

/** @returns why upstream cannot be used now, or null if it can */
export async function upstreamError(broker: Broker): Promise<string | null> {
  const late = Promise.withResolvers<string>();
  const timer = setTimeout(
    () => late.resolve(`it does not answer within ${PATIENCE_MS / 1000} s`),
    PATIENCE_MS,
  );
  const answer = broker.pool.probe().then(
    () => null,
    (error: Error) => explained(error),
  );
  return Promise.race([answer, late.promise]).finally(() => clearTimeout(timer));
}

/** Whether builds are served here: their sockets, or the folder that root's programs make for them. */
function servesBuilds({ runtime, listen }: Config): boolean {
  return listen.some(({ view }) => view === "build") || existsSync(`${runtime.dir}/sandboxes`);
}

/** Over a connection of its own: the one that serves builds waits much longer for a linker that is not there. */
export async function linkerReport(config: Config, { waiting }: LinkerClient): Promise<LinkerReport> {
  const needed = servesBuilds(config);
  const own = new LinkerClient(`${config.runtime.dir}/linker.sock`, { patience: PATIENCE_MS / 4 });
  const timer = setTimeout(() => own.close(), PATIENCE_MS);
  try {
    const { sandboxes, queued, linked, upstream, store } = await own.status();
    const error = store !== "ok" ? store : upstream !== "ok" ? upstream : null;
    return { error, needed, sandboxes, queued, linked, waiting };
  } catch (error) {
    return { error: (error as Error).message, needed, sandboxes: null, queued: null, linked: null, waiting };
  } finally {
    clearTimeout(timer);
    own.close();
  }
}
