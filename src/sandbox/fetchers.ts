/** What fetches for sandboxes: programs without any right but to use the network. `service/fetchers.ts` starts them. */
import type { FetchJob } from "../contract/fetch-job.ts";
import type { Transport } from "./upstream/connection.ts";

export interface Fetchers {
  readonly privateHosts: readonly string[];
  /**
   * Starts one, which has been told its job. There is a most that run at once; further ones wait.
   * @param owner whom it is for: owners take turns, and none gets all places
   * @param unwanted ends the waiting
   * @throws Error when it cannot be started, or is unwanted before it is
   */
  start(job: FetchJob, owner: object, unwanted: AbortSignal): Promise<Fetcher>;
}

export interface Fetcher {
  readonly transport: Transport;
  /** To be called in any case, at the end. */
  end(): void;
}
