/** The upstream connection of one client: taken when it is first needed, kept for the next client when this one leaves. */
import { type Dialect, dialectName } from "../../protocol/version.ts";
import type { UpstreamConnection } from "./connection.ts";
import type { KeptUpstreams } from "./kept.ts";
import type { UpstreamPool } from "./pool.ts";

export class OwnUpstream {
  private readonly kept: KeptUpstreams;
  private readonly pool: UpstreamPool;
  private held: UpstreamConnection | undefined;
  private gone = false;

  /** @param kept those of the client's sandbox */
  constructor(kept: KeptUpstreams, pool: UpstreamPool) {
    this.kept = kept;
    this.pool = pool;
  }

  /** A new one if the last one is gone or out of step. @throws UpstreamError */
  take(dialect: Dialect): UpstreamConnection | Promise<UpstreamConnection> {
    const { held } = this;
    if (held && !held.destroyed && !held.outOfStep) return held;
    held?.destroy();
    return this.takeAnother(dialect);
  }

  private async takeAnother(dialect: Dialect): Promise<UpstreamConnection> {
    const kept = this.kept.take(dialectName(dialect), (connection) => this.pool.isCurrent(connection));
    const taken = kept ?? (await this.pool.take(dialect));
    if (this.gone) taken.destroy();
    this.held = taken;
    return taken;
  }

  /** It may be in the middle of something. */
  destroy(): void {
    this.held?.destroy();
  }

  /** The client is gone. @param busy a request is in progress */
  leave(busy: boolean): void {
    this.gone = true;
    const { held } = this;
    this.held = undefined;
    if (!held) return;
    if (busy) held.destroy();
    else this.kept.keep(held);
  }
}
