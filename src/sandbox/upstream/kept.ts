/**
 * Upstream connections that clients of a sandbox have left in a clean state. The sandbox's next client gets
 * one of them, and no other sandbox ever does. For a build that calls Nix in a loop, the daemon therefore
 * forks once, not each time.
 */
import { dialectName } from "../../protocol/version.ts";
import type { UpstreamConnection } from "./connection.ts";

/** How many a sandbox keeps: each is a process of the daemon. */
const MOST_KEPT = 2;
/** How long one waits for the next client. */
const KEPT_MS = 5000;
/** None is kept for longer in all: the daemon keeps the temporary roots of a connection until it is closed. */
const OLDEST_MS = 10 * 60_000;

interface Kept {
  readonly connection: UpstreamConnection;
  readonly timer: NodeJS.Timeout;
}

export class KeptUpstreams {
  private readonly kept: Kept[] = [];
  private closed = false;

  /** Takes over an idle connection. It is destroyed if it cannot be kept. */
  keep(connection: UpstreamConnection): void {
    const usable = !connection.destroyed && !connection.outOfStep && !connection.remembersCaches;
    const old = performance.now() - connection.opened > OLDEST_MS;
    if (this.closed || !usable || old || this.kept.length >= MOST_KEPT) {
      connection.destroy();
      return;
    }
    const timer = setTimeout(() => this.drop(connection), KEPT_MS).unref();
    this.kept.push({ connection, timer });
    connection.onClose = () => this.drop(connection);
  }

  /**
   * The one that was left last, among those that speak this dialect.
   *
   * @param dialect as named by `dialectName`
   * @param isCurrent whether a connection may be used; others are destroyed
   */
  take(
    dialect: string,
    isCurrent: (connection: UpstreamConnection) => boolean,
  ): UpstreamConnection | undefined {
    for (;;) {
      const connection = this.kept.findLast(
        (each) => dialectName(each.connection.greeting) === dialect,
      )?.connection;
      if (!connection) return undefined;
      this.forget(connection);
      if (isCurrent(connection)) return connection;
      connection.destroy();
    }
  }

  close(): void {
    this.closed = true;
    for (const { connection } of [...this.kept]) this.drop(connection);
  }

  private drop(connection: UpstreamConnection): void {
    this.forget(connection);
    connection.destroy();
  }

  private forget(connection: UpstreamConnection): void {
    const at = this.kept.findIndex((each) => each.connection === connection);
    if (at < 0) return;
    clearTimeout(this.kept[at]!.timer);
    this.kept.splice(at, 1);
    connection.onClose = undefined;
  }
}
