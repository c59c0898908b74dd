/** The users that builds run as: Nix's build users, and the uids that it allocates by itself. */
import type { HooksConfig } from "../../config/config.ts";
import { UserDatabase, UserDatabaseError } from "../../host/users.ts";

/** `start-id` and `id-count` of `auto-allocate-uids` (src/libstore/include/nix/store/globals.hh), as they are by default. */
const ALLOCATED_FROM = 872_415_232;
const ALLOCATED_COUNT = 8_388_608;

export class BuildUsers {
  private readonly anyone: boolean;
  private readonly uids: ReadonlySet<number>;
  /** How many builds Nix runs at once; `Infinity` if nothing limits it. */
  readonly count: number;

  constructor(hooks: HooksConfig) {
    let allowed: ReturnType<UserDatabase["resolve"]> = { anyone: false, uids: new Set() };
    try {
      allowed = new UserDatabase().resolve(hooks.allowUids);
    } catch (error) {
      // A machine where Nix allocates the uids itself has no such group.
      if (!(error instanceof UserDatabaseError)) throw error;
    }
    this.anyone = allowed.anyone;
    this.uids = allowed.uids;
    this.count = hooks.buildUsers ?? (allowed.uids.size > 0 ? allowed.uids.size : Number.POSITIVE_INFINITY);
  }

  includes(uid: number): boolean {
    return (
      this.anyone || this.uids.has(uid) || (uid >= ALLOCATED_FROM && uid < ALLOCATED_FROM + ALLOCATED_COUNT)
    );
  }
}
