/** One brokered sandbox: its identity, its rights, what it knows, and how paths enter its view. */
import { randomBytes } from "node:crypto";
import type { Profile } from "../policy/profile.ts";
import { infoInView, type MaybePromise, type PathInfo } from "../policy/view-queries.ts";
import { ASKER_SECRET_BYTES, askerMark } from "../store/asker-mark.ts";
import { mapInSlices, type Pace } from "../store/slices.ts";
import { isDerivationPath, isStorePath, type StorePath } from "../store/store-path.ts";
import type { Holder } from "./held-infos.ts";
import type { Quota } from "./quota.ts";
import { Lane } from "./turns.ts";
import { KeptUpstreams } from "./upstream/kept.ts";
import type { UpstreamStore } from "./upstream/store.ts";
import type { View } from "./view.ts";

/** Where a sandbox keeps the paths of its view, and makes them visible. */
export interface Home {
  /** Keeps the closures of these paths from the garbage collector until the sandbox ends (G6). */
  keep(paths: readonly StorePath[]): Promise<void>;
  /** Makes these paths readable in the sandbox (G5); does nothing if the whole store is mounted. */
  show(paths: readonly StorePath[]): Promise<void>;
  /** Lets go of everything. */
  end(): Promise<void>;
}

/** A symbolic link of a client's. */
export interface FoundLink {
  /** Where upstream finds it. */
  readonly outside: string;
  /** What it names; may be anything. */
  readonly target: string;
}

/** The part of a home that makes what clients name roots of the garbage collector. */
export interface Links {
  /** Keeps these paths as long as the sandbox runs, unless that would be too many. */
  hold(paths: readonly StorePath[]): Promise<void>;
  /** The link at a path as the client sees it; undefined if there is none that upstream could find. */
  find(path: string): FoundLink | undefined;
  /** Makes a link a root for as long as it exists, and keeps what it names. @throws Refusal when there are too many */
  root(link: FoundLink): Promise<void>;
}

/** A jail of the configuration. */
export interface NamedJail {
  readonly name: string;
  /** When its lifetime is over; undefined for none. */
  readonly endsAt: Date | undefined;
}

export interface SandboxOptions {
  readonly id: string;
  readonly profile: Profile;
  readonly view: View;
  readonly quota: Quota;
  readonly home: Home;
  /** Of a jail: what makes its links roots. */
  readonly links?: Links | undefined;
  readonly store: UpstreamStore;
  /** The derivation of the outer build; undefined for a static socket. */
  readonly derivation: StorePath | undefined;
  /** The sandbox whose inner build this sandbox belongs to. */
  readonly parent: Sandbox | undefined;
  /** The path of its static socket; undefined for a build and for standard input. */
  readonly socket?: string | undefined;
  /** The jail of the configuration that it is. */
  readonly jail?: NamedJail | undefined;
  /** When it began, if that was in an earlier run of the service. */
  readonly since?: Date | undefined;
  /** Creates the initial view. */
  fill(sandbox: Sandbox): Promise<void>;
  /** As `Waits.released`. */
  released(paths: readonly StorePath[]): Promise<boolean>;
}

export class Sandbox {
  readonly id: string;
  readonly profile: Profile;
  readonly view: View;
  readonly quota: Quota;
  /** For long work requested by its clients. */
  readonly pace: Pace = new Lane();
  readonly derivation: StorePath | undefined;
  readonly parent: Sandbox | undefined;
  readonly socket: string | undefined;
  readonly since: Date;
  readonly jail: NamedJail | undefined;
  /** Distinguishes its inner builds from everybody else's. */
  readonly mark: StorePath;
  /** What the view has gained since the start, in order. */
  readonly gained: StorePath[] = [];
  /** Outputs that its builds told of, named as QueryRealisation names them up to 2.33: `sha256:…!out`. */
  readonly realised = new Set<string>();
  /** Derivations that were judged and may run; texts do not change. */
  readonly approved = new Set<StorePath>();
  /** Connections left by its clients, for its next ones. */
  readonly upstreams = new KeptUpstreams();
  readonly links: Links | undefined;
  /** Why requests are no longer accepted; undefined while they are. */
  ended: string | undefined;
  private begun: Promise<void> | undefined;
  private readonly fill: SandboxOptions["fill"];
  private readonly released: SandboxOptions["released"];
  private readonly home: Home;
  private readonly store: UpstreamStore;

  constructor(options: SandboxOptions) {
    this.id = options.id;
    this.mark = askerMark(options.view.storeDir, randomBytes(ASKER_SECRET_BYTES));
    this.profile = options.profile;
    this.view = options.view;
    this.quota = options.quota;
    this.derivation = options.derivation;
    this.parent = options.parent;
    this.socket = options.socket;
    this.since = options.since ?? new Date();
    this.jail = options.jail;
    this.home = options.home;
    this.links = options.links;
    this.store = options.store;
    this.fill = options.fill;
    this.released = options.released;
  }

  /** 1 for the sandbox of an outer build or a static socket. */
  get depth(): number {
    return this.parent ? this.parent.depth + 1 : 1;
  }

  /** Creates the initial view, once; clients wait for it. @throws as `admit`; then the next client tries again. */
  async begin(): Promise<void> {
    this.begun ??= this.fill(this).catch((error) => {
      this.begun = undefined;
      throw error;
    });
    await this.begun;
  }

  /** Lets closures into the view that it starts with, and that nothing else keeps. @throws as `admit` */
  async startWith(paths: readonly StorePath[]): Promise<void> {
    await this.admit(paths);
    this.gained.length = 0;
  }

  /** Lets closures into the view that the sandbox has and keeps already: what its build was given. */
  async learn(paths: readonly StorePath[]): Promise<void> {
    const infos = await this.closure(paths);
    this.quota.checkView(this.view.size + infos.length);
    this.view.add(infos);
  }

  /**
   * Lets paths with their closures into the view. When it resolves they are kept, and readable in the sandbox.
   * Upstream must hold the paths until then, which it does while the connection that made them is open.
   * @param addressOf the content address of a path that has none upstream, or "": what the client knows by itself must
   * not depend on how upstream came by it
   * @throws Refusal when the view would be too large; UpstreamError, UpstreamRefusal
   */
  async admit(
    paths: readonly StorePath[],
    addressOf?: (info: PathInfo) => MaybePromise<string>,
  ): Promise<void> {
    const fresh = paths.filter((path) => !this.view.knows(path));
    if (fresh.length === 0) return;
    await this.home.keep(fresh);
    if (!this.view.closed) return;
    const infos = await this.closure(fresh);
    this.quota.checkView(this.view.size + infos.length);
    const gained = infos.map((info) => info.path);
    // All of them, not only the given ones: any of them that an outer output mentions becomes one of its references.
    await this.home.keep(gained.filter((path) => !fresh.includes(path)));
    await this.home.show(gained);
    for (const [i, info] of infos.entries())
      if (info.contentAddress === "" && addressOf)
        infos[i] = { ...info, contentAddress: await addressOf(info) };
    this.enter(infos);
  }

  /**
   * Lets a path into the view that upstream has just added for a client, on a connection that is still open. All that it
   * refers to is there already, so what upstream told of it is all that has to be known, and nothing has to be asked.
   * @param told as upstream told it, or as the contents that the client sent show it
   * @param holder that connection
   * @param addressOf as for `admit`
   * @returns what is known of it from now on
   * @throws as `admit`
   */
  async admitAdded(
    told: PathInfo,
    holder: Holder,
    addressOf: (info: PathInfo) => MaybePromise<string>,
  ): Promise<PathInfo> {
    const { path, references } = told;
    this.view.hold?.(told, holder);
    if (!this.view.closed) return told;
    const isWhole = references.every((reference) => reference === path || this.view.knows(reference));
    if (this.view.knows(path) || !isWhole || (await this.released([path]))) {
      // What upstream had before, with more references, or what was somebody's output.
      await this.admit([path], (info) => (info.path === path ? addressOf(info) : ""));
      return infoInView(path, this.view);
    }
    this.quota.checkView(this.view.size + 1);
    const [contentAddress] = await Promise.all([
      told.contentAddress || addressOf(told),
      this.home.keep([path]),
      this.home.show([path]),
    ]);
    const info = { ...told, contentAddress };
    this.enter([info]);
    return info;
  }

  /** Other clients may have let in the same meanwhile, or as many as there was room for. @throws Refusal */
  private enter(infos: readonly PathInfo[]): void {
    const fresh = infos.filter(({ path }) => !this.view.knows(path));
    this.quota.checkView(this.view.size + fresh.length);
    this.view.add(fresh);
    for (const { path } of fresh) this.gained.push(path);
  }

  /**
   * If the profile says so, lets those of the named paths into the view that upstream has and that are fixed
   * outputs: paths that follow from a hash of their contents, and refer to nothing. Names may be anything.
   * @throws as `admit`
   */
  admitFixedOutputs(names: readonly string[]): undefined | Promise<void> {
    if (!this.profile.admitFixedOutputs || !this.view.closed) return undefined;
    return this.admitFixedAmong(names);
  }

  private async admitFixedAmong(names: readonly string[]): Promise<void> {
    const infos = await mapInSlices(names, this.pace, async (name) =>
      !isStorePath(name, this.view.storeDir) || isDerivationPath(name) || this.view.knows(name)
        ? undefined
        : this.store.info(name),
    );
    const fixed = infos.filter(
      (info) => info?.contentAddress.startsWith("fixed:") && info.references.length === 0,
    );
    await this.admit(fixed.map((info) => info!.path));
  }

  async end(reason: string): Promise<void> {
    this.ended ??= reason;
    this.upstreams.close();
    await this.home.end();
  }

  /** The paths of these closures that are new to the view, with all references that they will have. */
  private async closure(paths: readonly StorePath[]): Promise<PathInfo[]> {
    for (;;) {
      const infos = await this.store.closure(paths, (path) => this.view.knows(path));
      if (!(await this.released(infos.map(({ path }) => path)))) return infos;
    }
  }
}
