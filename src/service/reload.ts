/** Takes up a changed configuration while the service runs. */
import { isDeepStrictEqual } from "node:util";
import type { Config } from "../config/config.ts";

export interface Reloaded {
  /** What is in force from now on. */
  readonly config: Config;
  /** Tables that have changed, and are only read at the start. */
  readonly later: readonly string[];
}

/** What can change while sandboxes run: the static sockets, the profiles with their limits, and what is logged. */
export function takenUp(before: Config, read: Config): Reloaded {
  const config: Config = {
    ...before,
    file: read.file,
    listen: read.listen,
    limits: read.limits,
    profiles: read.profiles,
    hooks: { ...before.hooks, profile: read.hooks.profile },
    log: read.log,
  };
  const tables = ["upstream", "runtime", "hooks", "fetch", "audit", "metrics", "web"] as const;
  return { config, later: tables.filter((name) => !isDeepStrictEqual(config[name], read[name])) };
}

/** Runs one at a time; whoever asks while one runs gets the next one, which reads what is there then. */
export class OneAtATime {
  private readonly work: () => Promise<void>;
  private running: Promise<void> = Promise.resolve();
  private next: Promise<void> | undefined;

  constructor(work: () => Promise<void>) {
    this.work = work;
  }

  run(): Promise<void> {
    this.next ??= this.running.then(() => {
      this.next = undefined;
      const done = this.work();
      this.running = done.catch(() => undefined);
      return done;
    });
    return this.next;
  }
}
