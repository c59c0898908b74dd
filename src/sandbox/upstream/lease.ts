/**
 * Keeps paths from the garbage collector for a short while, so that upstream need not be asked again whether they are still
 * there: by temporary roots on a connection of the broker's own, which holds them while it is open.
 */
import type { StorePath } from "../../store/store-path.ts";
import type { UpstreamConnection } from "./connection.ts";

/** After so long everything is let go of. */
const LEASE_MS = 30_000;

export interface Leased {
  /** Those of the paths that are valid, and cannot vanish while the connection is open. */
  readonly valid: ReadonlySet<StorePath>;
  readonly connection: UpstreamConnection;
}

export class Lease {
  private readonly open: () => Promise<UpstreamConnection>;
  private readonly answerSeconds: () => number;
  private connection: UpstreamConnection | undefined;
  private timer: NodeJS.Timeout | undefined;
  private busy = false;
  private closed = false;

  /** @param answerSeconds how long upstream may take to answer */
  constructor(open: () => Promise<UpstreamConnection>, answerSeconds: () => number) {
    this.open = open;
    this.answerSeconds = answerSeconds;
  }

  /**
   * Roots the paths, and only then asks which of them are valid: the other way round, they could be collected in between.
   * @returns undefined while it is busy with other paths, and when upstream cannot be asked: nothing depends on it
   */
  async hold(paths: readonly StorePath[]): Promise<Leased | undefined> {
    if (this.busy || this.closed) return undefined;
    this.busy = true;
    try {
      const connection = await this.current();
      const roots = paths.map((path) => ({ path }));
      await connection.askEach("AddTempRoot", roots);
      const question = { paths: [...paths], substitute: 0 };
      const valid = new Set(await connection.ask("QueryValidPaths", question, this.answerSeconds()));
      return { valid, connection };
    } catch {
      this.end();
      return undefined;
    } finally {
      this.busy = false;
    }
  }

  close(): void {
    this.closed = true;
    this.end();
  }

  private async current(): Promise<UpstreamConnection> {
    if (this.connection && !this.connection.destroyed && !this.connection.outOfStep) return this.connection;
    this.end();
    const connection = await this.open();
    if (this.closed) connection.destroy();
    this.connection = connection;
    this.timer = setTimeout(() => this.end(), LEASE_MS).unref();
    return connection;
  }

  private end(): void {
    clearTimeout(this.timer);
    this.connection?.destroy();
    this.connection = undefined;
  }
}
