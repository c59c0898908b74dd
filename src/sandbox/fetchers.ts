/** What fetches for sandboxes: programs without any right but to use the network. `service/fetchers.ts` starts them. */
import type { FetchJob } from "../contract/fetch-job.ts";
import type { Transport } from "./upstream/connection.ts";

export interface Fetchers {
  readonly privateHosts: readonly string[];
  /**
   * Starts one, which has been told its job. There is a most that run at once; further ones wait.
   * @param owner whom it is for: while somebody waits, none keeps more places than others get
   * @param unwanted ends the waiting
   * @throws Error when it cannot be started, or is unwanted before it is
   */
  start(job: FetchJob, owner: object, unwanted: AbortSignal): Promise<Fetcher>;
}

export interface Fetcher {
  readonly transport: Transport;
  /** What the service knows of its download. */
  readonly place: FetchPlace;
  /** To be called in any case, at the end. */
  end(): void;
}

/** One of the few that run at once. While others wait, it can be taken away from a download, which is to be tried again. */
export interface FetchPlace {
  /** Whether it was taken away: the fetcher is hung up on then. */
  readonly displaced: boolean;
  /** @param bytes that it has downloaded so far */
  progress(bytes: number): void;
  /** The download is over: the place is not taken away any more. */
  settle(): void;
}
