/**
 * The home of a static socket's sandbox: its paths are kept by temporary roots, on an upstream connection of
 * its own that lives as long as the sandbox. Nothing has to be made visible: whoever mounts such a socket
 * also mounts what the sandbox may see.
 */

import type { Home } from "../sandbox/sandbox.ts";
import type { UpstreamConnection } from "../sandbox/upstream/connection.ts";
import { QueryChannel } from "../sandbox/upstream/query-channel.ts";
import type { StorePath } from "../store/store-path.ts";

export class TemporaryRoots implements Home {
  private readonly channel: QueryChannel;
  private readonly kept = new Set<StorePath>();

  /** @param answerSeconds how long upstream may take to answer for a root, for instance while it collects garbage */
  constructor(open: () => Promise<UpstreamConnection>, answerSeconds: number) {
    this.channel = new QueryChannel(async () => {
      const connection = await open();
      // Upstream was restarted: it has forgotten them.
      for (const path of this.kept) await connection.ask("AddTempRoot", { path }, answerSeconds);
      return connection;
    }, answerSeconds);
  }

  async keep(paths: readonly StorePath[]): Promise<void> {
    await Promise.all(paths.map((path) => this.channel.ask("AddTempRoot", { path })));
    for (const path of paths) this.kept.add(path);
  }

  async show(): Promise<void> {}

  async end(): Promise<void> {
    this.channel.close();
  }
}

/** For view `store`: paths are kept as with the daemon itself, while the client's own connection lives. */
export class NoRoots implements Home {
  async keep(): Promise<void> {}
  async show(): Promise<void> {}
  async end(): Promise<void> {}
}
