/** The running broker: upstream, sandboxes and their connections. Listeners and hooks pass clients to it. */
import type { Config } from "../config/config.ts";
import { newSandboxId } from "../contract/runtime-tree.ts";
import { meet, type Profile, type ViewStart } from "../policy/profile.ts";
import { NEWEST_MINOR } from "../protocol/version.ts";
import { type ClientTransport, Connection, type ConnectionServices } from "../sandbox/connection.ts";
import { MemoryBudget } from "../sandbox/memory-budget.ts";
import { Quota } from "../sandbox/quota.ts";
import { type Home, Sandbox } from "../sandbox/sandbox.ts";
import type { UpstreamConnection } from "../sandbox/upstream/connection.ts";
import { UpstreamPool } from "../sandbox/upstream/pool.ts";
import { UpstreamStore } from "../sandbox/upstream/store.ts";
import { ClosedView, StoreView } from "../sandbox/view.ts";
import { Waits } from "../sandbox/waits.ts";
import type { StorePath } from "../store/store-path.ts";
import type { AuditRecorder } from "./audit-recorder.ts";
import type { Counters } from "./counters.ts";
import { FETCH_SOCKET, FetcherStarter } from "./fetchers.ts";
import { JailHome, type OutsidePath } from "./jail-home.ts";
import { KeptRoots } from "./kept-roots.ts";
import type { OpenedJail } from "./named-jails.ts";
import { NoRoots, TemporaryRoots } from "./static-home.ts";
import { connectTo, generationOf } from "./upstream.ts";

/** What is known about a build that has its own sandbox. */
export interface BuildSandboxOptions {
  readonly id: string;
  readonly derivation: StorePath;
  /** Its outputs by name; "" where the path is not known before it has run. */
  readonly outputs: Readonly<Record<string, StorePath | "">>;
  readonly home: Home;
  /** The mark of the sandbox that asked for it; "" for an outer build. */
  readonly asker: StorePath | "";
  fill(sandbox: Sandbox): Promise<void>;
}

export interface StaticSandboxOptions {
  readonly profile: Profile;
  readonly view: ViewStart;
  /** The path of the socket; none for one connection on standard input. */
  readonly socket?: string;
  /** Of a jail: where upstream finds its links. */
  readonly outsidePath?: OutsidePath;
  /** Of a jail of the configuration. */
  readonly jail?: OpenedJail | undefined;
}

export class Broker {
  /** In force; changed by `takeUp`. */
  config: Config;
  readonly pool: UpstreamPool;
  readonly store: UpstreamStore;
  readonly metrics: Counters;
  readonly memory: MemoryBudget;
  private readonly recorder: AuditRecorder;
  private readonly waits: Waits;
  private readonly fetchers: FetcherStarter;
  private readonly sandboxes = new Map<string, Sandbox>();
  private readonly connections = new Set<Connection>();
  /** Sandboxes that end with their last client, and why. */
  private readonly retired = new Map<Sandbox, string>();
  private lastConnection = 0;
  private stopping = false;

  /** @param buildUsers how many builds Nix runs at once */
  constructor(config: Config, recorder: AuditRecorder, metrics: Counters, buildUsers: number) {
    const { upstream } = config;
    this.config = config;
    this.recorder = recorder;
    this.metrics = metrics;
    this.memory = new MemoryBudget(config.runtime.memory);
    this.waits = new Waits({ buildUsers, onRefused: (reason) => metrics.waitRefused(reason) });
    this.fetchers = new FetcherStarter({
      privateHosts: config.fetch.privateHosts,
      socket: process.env[FETCH_SOCKET],
    });
    this.pool = new UpstreamPool({
      connect: connectTo(upstream),
      generation: generationOf(upstream),
      storeDir: upstream.storeDir,
      size: upstream.pool,
      allowTrusted: upstream.allowTrusted,
    });
    this.store = new UpstreamStore(
      () => this.ownConnection(),
      (connection) => this.pool.isOutlived(connection),
      upstream.storeDir,
      () => this.config.limits,
      this.memory,
    );
  }

  /** The sandbox of a static socket. Its view is filled when the first client connects: upstream may be down now. */
  staticSandbox({ profile, view, socket, outsidePath, jail }: StaticSandboxOptions): Sandbox {
    const quota = this.quotaFor(profile);
    const kept = jail && new KeptRoots(jail.roots, this.temporaryRoots());
    // Where a jail of the configuration has its folders is not known: its links are no roots, what they name is kept.
    const jailHome = kept
      ? new JailHome(kept, quota, () => undefined)
      : outsidePath && new JailHome(this.temporaryRoots(), quota, outsidePath);
    const sandbox = new Sandbox({
      id: jail?.id ?? newSandboxId(),
      jail,
      since: jail?.since,
      profile,
      view: this.viewFor(view, profile),
      quota,
      home: jailHome ?? (view === "store" ? new NoRoots() : this.temporaryRoots()),
      links: jailHome,
      store: this.store,
      derivation: undefined,
      parent: undefined,
      socket,
      // Upstream may be down now; the first client waits for it.
      fill: async (made) => {
        await kept?.restore();
        if (typeof view !== "string") await made.startWith(view);
      },
      released: (paths) => this.waits.released(paths),
    });
    this.begin(sandbox, jail ? `jail ${jail.name}` : "static socket");
    return sandbox;
  }

  /** Roots that disappear with the sandbox that they are for, or with the service. */
  temporaryRoots(): TemporaryRoots {
    return new TemporaryRoots(() => this.ownConnection(), this.config.limits.requestDeadline);
  }

  /**
   * The sandbox of a build. If it is the inner build of another sandbox, it gets no more rights than that
   * sandbox, and shares its quotas. Others that wait for the same build do not matter.
   */
  buildSandbox(build: BuildSandboxOptions): Sandbox {
    const parent = [...this.sandboxes.values()].find(({ mark }) => mark === build.asker);
    const own = this.config.hooks.profile;
    const profile = parent ? meet(own, parent.profile) : own;
    const sandbox = new Sandbox({
      ...build,
      profile,
      view: this.viewFor("empty", profile),
      quota: parent?.quota ?? this.quotaFor(profile),
      store: this.store,
      parent,
      released: (paths) => this.waits.released(paths),
    });
    // It must not continue with the rights of an outer build: its asker may have had fewer.
    if (build.asker !== "" && !parent)
      sandbox.ended = "the build that asked for this one is gone, or nix-broker was restarted meanwhile";
    else if (sandbox.depth > profile.limits.depth) {
      this.metrics.limitHit("depth");
      sandbox.ended = `sandboxes may be nested no deeper than ${profile.limits.depth} (limits.depth)`;
    }
    this.waits.began(sandbox, heldBy(build.outputs, build.derivation));
    const outputs = new Map(Object.entries(build.outputs).filter(([, path]) => path !== ""));
    const asker = parent ? `sandbox ${parent.id}` : "a sandbox that is gone";
    this.begin(sandbox, build.asker === "" ? "outer build" : `inner build asked for by ${asker}`, outputs);
    return sandbox;
  }

  /**
   * Withholds a build's outputs from all sandboxes until their references are registered.
   *
   * @returns the release function
   */
  holdUnsettled(outputs: BuildSandboxOptions["outputs"], derivation: StorePath): () => void {
    return this.waits.hold(heldBy(outputs, derivation));
  }

  /** No new requests; those in progress are cut off. */
  async endSandbox(sandbox: Sandbox, reason: string): Promise<void> {
    if (!this.sandboxes.delete(sandbox.id)) return;
    this.waits.ended(sandbox);
    try {
      await sandbox.end(reason);
    } finally {
      for (const connection of this.connections) if (connection.sandbox === sandbox) connection.stop(true);
      this.recorder.sandboxEnded(sandbox, reason);
    }
  }

  /** Ends all that are this jail: besides the one that gets new clients, those that a reload left to their clients. */
  async endJail(name: string, reason: string): Promise<void> {
    for (const sandbox of [...this.sandboxes.values()])
      if (sandbox.jail?.name === name) await this.endSandbox(sandbox, reason);
  }

  /** Ends a sandbox once its clients have left. */
  async retireSandbox(sandbox: Sandbox, reason: string): Promise<void> {
    this.retired.set(sandbox, reason);
    await this.endIfLeft(sandbox);
  }

  private async endIfLeft(sandbox: Sandbox): Promise<void> {
    const reason = this.retired.get(sandbox);
    if (reason === undefined || this.connectionsBySandbox.has(sandbox)) return;
    this.retired.delete(sandbox);
    await this.endSandbox(sandbox, reason);
  }

  /** Sandboxes that begin from now on have the profile and the limits of this configuration. */
  takeUp(config: Config): void {
    this.config = config;
  }

  private begin(sandbox: Sandbox, reason: string, outputs = new Map<string, StorePath>()): void {
    this.sandboxes.set(sandbox.id, sandbox);
    this.recorder.sandboxBegan(sandbox, reason, outputs);
  }

  /** Serves one client until it leaves. Never throws. */
  async serve(client: ClientTransport, sandbox: Sandbox): Promise<void> {
    const connection = new Connection(client, sandbox, this.services, ++this.lastConnection);
    this.connections.add(connection);
    if (this.stopping && !sandbox.parent) connection.stop(true);
    try {
      await connection.serve();
    } finally {
      this.connections.delete(connection);
      await this.endIfLeft(sandbox);
    }
  }

  /** Tells a client why it is not served. */
  refuse(client: ClientTransport, sandbox: Sandbox, reason: string): void {
    void new Connection(client, sandbox, this.services, ++this.lastConnection).refuse(reason);
  }

  private get services(): ConnectionServices {
    const { pool, store, recorder, waits, fetchers, memory } = this;
    return { pool, store, recorder, waits, fetchers, memory };
  }

  get openConnections(): number {
    return this.connections.size;
  }

  /** The sandboxes that have not ended, oldest first. */
  get openSandboxes(): Iterable<Sandbox> {
    return this.sandboxes.values();
  }

  /** How many connections each sandbox has now; those that have none are absent. */
  get connectionsBySandbox(): ReadonlyMap<Sandbox, number> {
    const counts = new Map<Sandbox, number>();
    for (const { sandbox } of this.connections) counts.set(sandbox, (counts.get(sandbox) ?? 0) + 1);
    return counts;
  }

  /** Build requests that upstream is working on. */
  get buildsRunning(): number {
    const quotas = new Set([...this.sandboxes.values()].map(({ quota }) => quota));
    return [...quotas].reduce((sum, { buildsRunning }) => sum + buildsRunning, 0);
  }

  /** Ends all sandboxes: requests in flight get up to this many seconds to finish. */
  async stop(graceSeconds: number): Promise<void> {
    this.stopping = true;
    // Those of inner builds go on: what the others wait for may need them.
    const outermost = (): Connection[] => [...this.connections].filter(({ sandbox }) => !sandbox.parent);
    for (const connection of outermost()) connection.stop(false);
    const end = Date.now() + graceSeconds * 1000;
    while (outermost().length > 0 && Date.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 20));
    for (const connection of this.connections) connection.stop(true);
    for (const sandbox of this.sandboxes.values()) await sandbox.end("the service stops");
    this.store.close();
    this.pool.close();
  }

  /** An upstream connection for the broker's own questions, in the newest version that upstream has. */
  private async ownConnection(): Promise<UpstreamConnection> {
    const { facts } = this.pool;
    try {
      if (facts) return await this.pool.take(facts);
    } catch (error) {
      // The pool has forgotten them if upstream is another version now.
      if (this.pool.facts) throw error;
    }
    return this.pool.take(await this.pool.probe());
  }

  private viewFor(start: ViewStart, { substitute }: Profile): ClosedView | StoreView {
    const minor = (): number => this.pool.facts?.minor ?? NEWEST_MINOR;
    return start === "store"
      ? new StoreView(this.store, minor, substitute)
      : new ClosedView(this.store, minor);
  }

  private quotaFor(profile: Profile): Quota {
    return new Quota(profile.limits, (limit) => this.metrics.limitHit(limit));
  }
}

/** What a build locks while it runs; its derivation stands for outputs that are not known. */
function heldBy(outputs: BuildSandboxOptions["outputs"], derivation: StorePath): StorePath[] {
  return Object.values(outputs).map((path) => path || derivation);
}
