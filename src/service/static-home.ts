/**
 * The home of a static socket's sandbox: its paths are kept by temporary roots, on an upstream connection of
 * its own that lives as long as the sandbox. Nothing has to be made visible: whoever mounts such a socket
 * also mounts what the sandbox may see.
 */

import { toWireText } from "../protocol/wire.ts";
import type { Home } from "../sandbox/sandbox.ts";
import type { UpstreamConnection } from "../sandbox/upstream/connection.ts";
import { QueryChannel } from "../sandbox/upstream/query-channel.ts";
import type { StorePath } from "../store/store-path.ts";

/** How long to wait for an upstream that is not there before it is tried again. */
const RETRY_MS = 500;

/** Roots of the garbage collector that upstream holds for a sandbox. */
export interface Roots {
  /** How many paths are kept. */
  readonly size: number;
  has(path: StorePath): boolean;
  keep(paths: readonly StorePath[]): Promise<void>;
  /** Makes upstream follow a link to a root for as long as it exists, whoever is connected. */
  followLink(link: string): Promise<void>;
  end(): Promise<void>;
}

export class TemporaryRoots implements Home, Roots {
  private readonly channel: QueryChannel;
  private readonly kept = new Set<StorePath>();
  private retry: NodeJS.Timeout | undefined;
  private ended = false;

  /** @param answerSeconds how long upstream may take to answer for a root, for instance while it collects garbage */
  constructor(open: () => Promise<UpstreamConnection>, answerSeconds: number) {
    this.channel = new QueryChannel(
      async () => {
        const connection = await open();
        // Upstream was restarted: it has forgotten them.
        for (const path of this.kept) await connection.ask("AddTempRoot", { path }, answerSeconds);
        connection.onClose = () => this.renewSoon();
        return connection;
      },
      () => answerSeconds,
    );
  }

  get size(): number {
    return this.kept.size;
  }

  has(path: StorePath): boolean {
    return this.kept.has(path);
  }

  async keep(paths: readonly StorePath[]): Promise<void> {
    await Promise.all(paths.map((path) => this.channel.ask("AddTempRoot", { path })));
    for (const path of paths) this.kept.add(path);
  }

  async followLink(link: string): Promise<void> {
    await this.channel.ask("AddIndirectRoot", { link: toWireText(link) });
  }

  /** Upstream has hung up, and forgotten the roots: they are not left to the next request, which may come late. */
  private renewSoon(): void {
    if (this.ended || this.kept.size === 0) return;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => {
      const [path = ""] = this.kept;
      this.channel.ask("AddTempRoot", { path }).catch(() => this.renewSoon());
    }, RETRY_MS).unref();
  }

  async show(): Promise<void> {}

  async end(): Promise<void> {
    this.ended = true;
    clearTimeout(this.retry);
    this.channel.close();
  }
}

/** For view `store`: paths are kept as with the daemon itself, while the client's own connection lives. */
export class NoRoots implements Home {
  async keep(): Promise<void> {}
  async show(): Promise<void> {}
  async end(): Promise<void> {}
}
