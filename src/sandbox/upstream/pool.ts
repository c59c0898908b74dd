/**
 * Fresh upstream connections with the handshake done, kept ready: the daemon forks a process for each, which takes
 * milliseconds; taking one from here takes nothing. A connection that was used by a sandbox never comes back.
 */
import { type DaemonGreeting, TRUST } from "../../protocol/handshake.ts";
import {
  type Dialect,
  dialectName,
  FEATURES,
  NEWEST_MINOR,
  oldestNixSpeaking,
} from "../../protocol/version.ts";
import {
  type Connect,
  OPEN_SECONDS,
  UpstreamConnection,
  UpstreamError,
  UpstreamHungUp,
  UpstreamRefusal,
} from "./connection.ts";

export interface PoolOptions {
  readonly connect: Connect;
  /**
   * Another text once another daemon process listens; undefined where that is not known. The connections of a daemon may
   * outlive it, with the settings of before.
   */
  readonly generation?: () => string | undefined;
  readonly storeDir: string;
  /** How many to keep ready for each of the most recently used dialects. */
  readonly size: number;
  /** Accept an upstream that trusts the service's user: a private single-user daemon. */
  readonly allowTrusted: boolean;
}

/** What upstream offers: clients are not offered more. */
export interface UpstreamFacts extends Dialect {
  readonly nixVersion: string | undefined;
}

const NEWEST: Dialect = { minor: NEWEST_MINOR, features: new Set(FEATURES) };
/** One at a time, with a pause: the daemon's listen queue has five places up to Nix 2.8. */
const REFILL_PAUSE_MS = 20;
/**
 * Before 1.35 the daemon does not say whether it trusts us; a harmless request that only trusted users may
 * make does.
 */
const TRUST_TOLD_SINCE = 35;
const BUILD_MODE_REPAIR = 1;
/** Dialects kept ready at once: clients of many versions must not cause an unlimited number of connections. */
const MOST_DIALECTS = 4;

export class UpstreamPool {
  private readonly options: PoolOptions;
  private readonly ready = new Map<
    string,
    { readonly dialect: Dialect; readonly idle: UpstreamConnection[] }
  >();
  private refilling: Promise<void> | undefined;
  private closed = false;
  private known: UpstreamFacts | undefined;
  private generation: string | undefined;

  constructor(options: PoolOptions) {
    this.options = options;
  }

  /** As last seen; undefined until upstream was reached once, and after it was restarted. */
  get facts(): UpstreamFacts | undefined {
    this.noticeRestart();
    return this.known;
  }

  /** Whether something can be asked on a connection, and the daemon that it leads to still listens. */
  isCurrent(connection: UpstreamConnection): boolean {
    return !connection.destroyed && !connection.outOfStep && !this.isOutlived(connection);
  }

  /** Whether another daemon listens than the one that a connection leads to. */
  isOutlived({ generation }: UpstreamConnection): boolean {
    const now = this.options.generation?.();
    return now !== undefined && generation !== undefined && generation !== now;
  }

  /** How many connections are ready. */
  get idle(): number {
    let count = 0;
    for (const { idle } of this.ready.values()) count += idle.length;
    return count;
  }

  /**
   * Reaches upstream once, to learn its version, and whether it trusts this service.
   * @throws UpstreamError when it cannot be reached, or trusts us although it may not.
   */
  async probe(): Promise<UpstreamFacts> {
    const connection = await this.open(NEWEST);
    try {
      await this.requireStore(connection);
      // Last, because daemons that do not tell hang up after this.
      if (connection.greeting.minor < TRUST_TOLD_SINCE && !this.options.allowTrusted)
        await refuseTrusted(connection);
    } finally {
      connection.destroy();
    }
    const { minor, features, nixVersion } = connection.greeting;
    this.known = { minor, features, nixVersion };
    return this.known;
  }

  /** A connection in exactly this dialect, for one sandbox. @throws UpstreamError */
  async take(dialect: Dialect): Promise<UpstreamConnection> {
    this.noticeRestart();
    const key = dialectName(dialect);
    let shelf = this.ready.get(key);
    this.ready.delete(key);
    shelf ??= { dialect, idle: [] };
    this.ready.set(key, shelf);
    this.forgetOldest();
    try {
      for (let connection = shelf.idle.pop(); connection; connection = shelf.idle.pop())
        if (this.isCurrent(connection)) return connection;
        else connection.destroy();
      return await this.open(dialect);
    } finally {
      this.refill();
    }
  }

  /** Drops every ready connection: upstream was restarted. */
  flush(): void {
    for (const { idle } of this.ready.values()) for (const connection of idle.splice(0)) connection.destroy();
  }

  close(): void {
    this.closed = true;
    this.flush();
  }

  private async open(dialect: Dialect): Promise<UpstreamConnection> {
    // Before it is opened: what it is then taken for is too old at worst.
    const generation = this.options.generation?.();
    const { connect, storeDir } = this.options;
    const connection = await UpstreamConnection.open(connect, dialect, storeDir).catch((error: Error) =>
      this.explain(error, dialect),
    );
    connection.generation = generation;
    const { greeting } = connection;
    if (greeting.trust === TRUST.trusted && !this.options.allowTrusted) {
      connection.destroy();
      throw new UpstreamError(TRUSTED);
    }
    this.notice(greeting);
    if (dialect !== NEWEST && dialectName(greeting) !== dialectName(dialect)) {
      connection.destroy();
      throw new UpstreamError(
        `the nix-daemon now speaks ${dialectName(greeting)}, and this connection ${dialectName(dialect)}; connect again`,
      );
    }
    return connection;
  }

  /** Some daemons (Lix 2.94 and later) hang up on old versions of the protocol without a word. @throws always */
  private async explain(error: Error, { minor }: Dialect): Promise<never> {
    if (!(error instanceof UpstreamHungUp) || minor === NEWEST_MINOR) throw error;
    const served = await this.probe().catch(() => undefined);
    if (!served || served.minor <= minor) throw error;
    throw new UpstreamError(
      `the nix-daemon does not serve clients as old as this one, which speaks protocol 1.${minor}; use a client of Nix ${oldestNixSpeaking(served.minor)} (1.${served.minor}) or later`,
      error.explained,
    );
  }

  /** A restarted daemon may have other settings, and trust others. */
  private noticeRestart(): void {
    const now = this.options.generation?.();
    if (now === undefined || now === this.generation) return;
    if (this.generation !== undefined) {
      this.flush();
      this.known = undefined;
    }
    this.generation = now;
  }

  /** Notices another version of upstream behind the same socket: what was created for the old one is useless. */
  private notice(greeting: DaemonGreeting): void {
    const minor = Math.min(greeting.daemonMinor, NEWEST_MINOR);
    const facts = this.known;
    const changed =
      facts &&
      (facts.minor !== minor ||
        (facts.nixVersion !== undefined &&
          greeting.nixVersion !== undefined &&
          facts.nixVersion !== greeting.nixVersion));
    if (!changed) return;
    this.flush();
    this.known = undefined;
  }

  /** @throws UpstreamError if upstream's store is in another folder than we were told */
  private async requireStore(connection: UpstreamConnection): Promise<void> {
    const { storeDir } = this.options;
    try {
      await connection.ask("IsValidPath", { path: `${storeDir}/${"0".repeat(32)}-nix-broker` }, OPEN_SECONDS);
    } catch (error) {
      if (!(error instanceof UpstreamRefusal)) throw error;
      throw new UpstreamError(
        `the nix-daemon's store is not ${storeDir} as it should be; set upstream.store_dir to its folder`,
        error.message,
      );
    }
  }

  private refill(): void {
    if (this.refilling || this.closed || this.options.size === 0) return;
    this.refilling = this.refillAll().finally(() => {
      this.refilling = undefined;
    });
  }

  private async refillAll(): Promise<void> {
    for (;;) {
      await new Promise<void>((resolve) => setTimeout(resolve, REFILL_PAUSE_MS).unref());
      const shelf = [...this.ready.values()].find(({ idle }) => idle.length < this.options.size);
      if (!shelf || this.closed) return;
      try {
        const connection = await this.open(shelf.dialect);
        if (this.closed) return connection.destroy();
        shelf.idle.push(connection);
        connection.onClose = () => {
          const at = shelf.idle.indexOf(connection);
          if (at < 0) return;
          shelf.idle.splice(at, 1);
          connection.destroy();
          // Upstream was stopped: its successor is asked again for its version, and whether it trusts us.
          this.known = undefined;
        };
      } catch {
        // Upstream is down; the next client's request will report it, and start filling again.
        return;
      }
    }
  }

  private forgetOldest(): void {
    for (const [key, { idle }] of this.ready) {
      if (this.ready.size <= MOST_DIALECTS) return;
      for (const connection of idle) connection.destroy();
      this.ready.delete(key);
    }
  }
}

const TRUSTED =
  "the nix-daemon trusts the user that nix-broker runs as, so there is no second line of defence behind a bug in the broker. " +
  "Take that user out of trusted-users, or set upstream.allow_trusted for a private single-user daemon";

/** @throws UpstreamError if the daemon would let us repair paths, which only trusted users may. Nothing is repaired. */
async function refuseTrusted(connection: UpstreamConnection): Promise<void> {
  try {
    await connection.ask("BuildPaths", { paths: [], mode: BUILD_MODE_REPAIR }, OPEN_SECONDS);
  } catch (error) {
    if (error instanceof UpstreamRefusal) return;
    throw error;
  }
  throw new UpstreamError(TRUSTED);
}
