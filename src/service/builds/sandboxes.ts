/**
 * Per-build sandboxes. The hook registers each as a folder (docs/linker-and-hooks.md); this side finds the
 * folders, makes the sandboxes, and listens in their socket folders. Since the folders are the registration,
 * a restarted service resumes the sandboxes that still live, with their views.
 */
import { existsSync, type FSWatcher, readdirSync, readFileSync, watch } from "node:fs";
import type { Config } from "../../config/config.ts";
import { isSandboxId } from "../../contract/runtime-tree.ts";
import {
  isObject,
  MAX_RECORD,
  parseSandboxRecord,
  type SandboxRecord,
} from "../../contract/sandbox-record.ts";
import type { ByteStream } from "../../host/byte-stream.ts";
import { type Listener, listenOnPath } from "../../host/listen.ts";
import { CLIENT_STREAM } from "../../sandbox/connection.ts";
import type { Sandbox } from "../../sandbox/sandbox.ts";
import { isStoreBase, type StorePath } from "../../store/store-path.ts";
import type { Broker } from "../broker.ts";
import type { Log } from "../log.ts";
import { BuildHome } from "./home.ts";
import type { LinkerClient } from "./linker-client.ts";
import type { BuildUsers } from "./users.ts";
import { inputsOf } from "./view.ts";

/** The outcome of a build whose references could not be registered yet (docs/linker-and-hooks.md). */
const PENDING = "pending";

/**
 * A safety net for the watches, whose events the kernel may drop when very much happens at once, and of which there may be
 * none left. Far less than hooks wait for us (`hook_wait_ms`).
 */
const RESCAN_MS = 1000;
/** How long the folder of a sandbox may take to appear. */
const FIND_MS = 5000;

interface Live {
  readonly record: SandboxRecord;
  readonly sandbox: Sandbox;
  /** Undefined where the machine has no watches left: it is looked at now and then. */
  readonly watcher: FSWatcher | undefined;
  /** Undefined where the client comes by a static socket, or listening failed. */
  readonly listening: Promise<Listener | undefined>;
  /** The uid of the first client: no other gets in. */
  uid: number | undefined;
}

export class BuildSandboxes {
  private readonly config: Config;
  private readonly broker: Broker;
  private readonly linker: LinkerClient;
  private readonly users: BuildUsers;
  private readonly log: Log;
  private readonly live = new Map<string, Live>();
  /** The release functions for outputs of sandboxes that are over, but whose references are not registered yet. */
  private readonly unsettled = new Map<string, () => void>();
  /** Those of before a reboot, likewise. */
  private readonly leftovers = new Map<string, () => void>();
  private readonly waiting = new Map<string, Array<() => void>>();
  private watcher: FSWatcher | undefined;
  private rescan: NodeJS.Timeout | undefined;
  /** Whether that was logged. */
  private lacksWatches = false;
  private draining = false;
  private closed = false;

  constructor(config: Config, broker: Broker, linker: LinkerClient, users: BuildUsers, log: Log) {
    this.config = config;
    this.broker = broker;
    this.linker = linker;
    this.users = users;
    this.log = log;
  }

  /** Resumes existing sandboxes, and watches for more. Resolves when the sockets of the existing ones are open. */
  async start(): Promise<void> {
    this.look();
    this.holdLeftovers();
    // Clients of running sandboxes must not be refused because we are not ready yet.
    await Promise.all([...this.live.values()].map(({ listening }) => listening));
    this.rescan = setInterval(() => this.look(), RESCAN_MS);
    this.rescan.unref();
  }

  /** The sandbox of an id, waiting a little for a folder that was just made. */
  async find(id: string): Promise<Sandbox | undefined> {
    if (!this.live.has(id)) {
      this.look();
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, FIND_MS);
        const waiters = this.waiting.get(id) ?? [];
        waiters.push(() => {
          clearTimeout(timer);
          resolve();
        });
        this.waiting.set(id, waiters);
        if (this.live.has(id)) this.announce(id);
      });
    }
    return this.live.get(id)?.sandbox;
  }

  /** Whether this client may use that sandbox: only one user per build may, and it must be a build user. */
  admits(sandbox: Sandbox, uid: number): boolean {
    const entry = this.live.get(sandbox.id);
    if (!entry || !this.users.includes(uid)) return false;
    entry.uid ??= uid;
    return entry.uid === uid;
  }

  /** The build user of a sandbox; undefined before its first client came. */
  uidOf(sandbox: Sandbox): number | undefined {
    return this.live.get(sandbox.id)?.uid;
  }

  /** Accepts clients of inner builds only, since requests in flight may depend on them. */
  async drain(): Promise<void> {
    this.draining = true;
    for (const { sandbox, listening } of this.live.values())
      if (!sandbox.parent) await (await listening)?.close();
  }

  /** The folders stay: the next service resumes them. */
  async stop(): Promise<void> {
    this.closed = true;
    clearInterval(this.rescan);
    this.watcher?.close();
    for (const { sandbox, watcher, listening } of this.live.values()) {
      watcher?.close();
      if (sandbox.parent) await (await listening)?.close();
    }
  }

  get count(): number {
    return this.live.size;
  }

  /** The copy of the record that survives a reboot. */
  private durableOf(id: string): string {
    return `${this.config.hooks.gcrootsDir}/${id}.json`;
  }

  private get folder(): string {
    return `${this.config.runtime.dir}/sandboxes`;
  }

  private look(): void {
    if (this.closed) return;
    // Root's programs make the folder, maybe after us.
    this.watcher ??= this.watch(this.folder, () => this.look())?.on("error", () => this.unwatch());
    const names = this.list(this.folder);
    if (!names) return;
    for (const id of names)
      if (isSandboxId(id) && !this.live.has(id) && !this.unsettled.has(id)) this.resume(id);
    for (const [id] of this.unsettled) this.checkSettled(id);
    for (const [id, release] of this.leftovers)
      if (names.includes(id) || !existsSync(this.durableOf(id))) {
        this.leftovers.delete(id);
        release();
      }
    for (const [id, { watcher }] of this.live)
      if (!names.includes(id)) void this.end(id, "its folder was removed");
      else if (!watcher) this.checkEnded(id);
  }

  /** After a reboot, which empties the folder of sandboxes: the linker removes these records as it settles them. */
  private holdLeftovers(): void {
    for (const name of this.list(this.config.hooks.gcrootsDir) ?? []) {
      const id = name.replace(/\.json$/, "");
      if (!isSandboxId(id) || id === name || this.live.has(id) || this.unsettled.has(id)) continue;
      try {
        const record = readRecord(this.durableOf(id));
        this.leftovers.set(id, this.hold(record));
      } catch (error) {
        if (!existsSync(this.durableOf(id))) continue;
        this.log.error({ sandbox: id, error: (error as Error).message }, "a record that cannot be read");
      }
    }
  }

  /** @returns undefined for a folder that cannot be read, which means nothing by itself */
  private list(folder: string): string[] | undefined {
    try {
      return readdirSync(folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
      this.log.error({ error: (error as Error).message }, "cannot read the folder of sandboxes");
      return undefined;
    }
  }

  /** @returns undefined for a folder that is not there, and where the machine has no watches left */
  private watch(folder: string, changed: () => void): FSWatcher | undefined {
    try {
      return watch(folder, changed);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT" && !this.lacksWatches) {
        this.lacksWatches = true;
        this.log.warn(
          { error: (error as Error).message },
          "cannot watch the sandboxes: it is noticed a second later that one begins or ends (fs.inotify.max_user_watches)",
        );
      }
      return undefined;
    }
  }

  private unwatch(): void {
    this.watcher?.close();
    this.watcher = undefined;
  }

  private resume(id: string): void {
    const folder = `${this.folder}/${id}`;
    const outcome = this.outcomeOf(id);
    if (outcome !== undefined && outcome !== PENDING) {
      void this.release(id);
      return;
    }
    let record: SandboxRecord;
    try {
      record = this.recordOf(id);
    } catch (error) {
      // Root's programs move a folder away before they empty it.
      if (!existsSync(folder)) return;
      this.log.error({ sandbox: id, error: (error as Error).message }, "a sandbox that cannot be taken up");
      return;
    }
    if (outcome === PENDING) {
      this.unsettled.set(id, this.hold(record));
      return;
    }
    if (this.draining && record.asker === "") return;
    const watcher = this.watch(folder, () => this.checkEnded(id))?.on("error", () => this.checkEnded(id));
    // Removed in between.
    if (!existsSync(folder)) {
      watcher?.close();
      return;
    }
    const sandbox = this.makeSandbox(record);
    const listening = this.listen(id, record, folder).catch((error: Error) => {
      this.log.error({ sandbox: id, error: error.message }, "cannot listen in a sandbox");
      return undefined;
    });
    this.live.set(id, { record, sandbox, watcher, listening, uid: undefined });
    this.log.info(
      { sandbox: id, derivation: record.drvPath, refused: record.reason || undefined },
      "a sandbox begins",
    );
    this.announce(id);
  }

  private announce(id: string): void {
    for (const resolve of this.waiting.get(id) ?? []) resolve();
    this.waiting.delete(id);
  }

  private makeSandbox(record: SandboxRecord): Sandbox {
    const { id, drvPath, asker } = record;
    const home = new BuildHome(
      id,
      `${this.config.hooks.gcrootsDir}/${id}`,
      this.linker,
      this.broker.temporaryRoots(),
    );
    const sandbox = this.broker.buildSandbox({
      id,
      derivation: drvPath,
      outputs: record.outputs,
      home,
      asker,
      fill: async (made) => {
        await made.learn(await inputsOf(drvPath, this.broker.store));
        await this.restoreGains(made);
      },
    });
    if (record.kind === "refused") sandbox.ended = record.reason;
    // Before the first client connects; if it fails, the waiting client is told.
    else if (sandbox.ended === undefined) sandbox.begin().catch(() => undefined);
    return sandbox;
  }

  /** What the view had gained before the service was restarted: the roots list it. */
  private async restoreGains(sandbox: Sandbox): Promise<void> {
    const names = readdirSync(`${this.config.hooks.gcrootsDir}/${sandbox.id}`).filter(isStoreBase);
    const paths = names.map((name): StorePath => `${this.broker.store.storeDir}/${name}`);
    const infos = await Promise.all(paths.map((path) => this.broker.store.info(path)));
    await sandbox.admit(paths.filter((_, i) => infos[i] !== undefined));
  }

  private async listen(id: string, { origin }: SandboxRecord, folder: string): Promise<Listener | undefined> {
    if (origin !== "hook") return undefined;
    return listenOnPath(`${folder}/socket.d/socket`, (stream) => this.accept(id, stream), {
      mode: 0o666,
      stream: CLIENT_STREAM,
    });
  }

  private accept(id: string, stream: ByteStream): void {
    const entry = this.live.get(id);
    if (!entry) {
      stream.destroy();
      return;
    }
    const { sandbox } = entry;
    const uid = stream.peer?.uid ?? -1;
    if (!this.admits(sandbox, uid)) {
      this.log.warn({ sandbox: id, uid }, "refused a user that is not the build's");
      this.broker.refuse(stream, sandbox, `user ${uid} is not the user of this build (hooks.allow_uids)`);
      return;
    }
    // The hook may have waited in vain for the linker and refused the build after all.
    if (sandbox.ended === undefined) sandbox.ended = this.refusedMeanwhile(id);
    void this.broker.serve(stream, sandbox);
  }

  private refusedMeanwhile(id: string): string | undefined {
    try {
      return this.recordOf(id).reason || undefined;
    } catch (error) {
      return (error as Error).message;
    }
  }

  private checkEnded(id: string): void {
    const outcome = this.live.has(id) ? this.outcomeOf(id) : undefined;
    if (outcome !== undefined) void this.end(id, outcome);
  }

  /** What `ended` says; undefined before there is one. */
  private outcomeOf(id: string): string | undefined {
    const path = `${this.folder}/${id}/ended`;
    if (!existsSync(path)) return undefined;
    try {
      const value: unknown = JSON.parse(readFileSync(path, "utf8"));
      if (isObject(value) && typeof value.outcome === "string") return value.outcome;
    } catch {
      // Root writes it whole; whatever it says, the sandbox is over.
    }
    return "ended";
  }

  /** The linker registers the references later, and says so in `ended`. */
  private checkSettled(id: string): void {
    if (this.outcomeOf(id) === PENDING) return;
    this.unsettled.get(id)?.();
    this.unsettled.delete(id);
    void this.release(id);
  }

  private async end(id: string, reason: string): Promise<void> {
    const entry = this.live.get(id);
    if (!entry) return;
    this.live.delete(id);
    if (reason === PENDING) this.unsettled.set(id, this.hold(entry.record));
    entry.watcher?.close();
    this.log.info({ sandbox: id, reason }, "a sandbox ends");
    const failed = (error: Error): void =>
      this.log.error({ sandbox: id, error: error.message }, "a sandbox did not end well");
    // Each one regardless of the others: nobody waits for the promise.
    await this.broker.endSandbox(entry.sandbox, `this sandbox has ended: ${reason}`).catch(failed);
    await entry.listening.then((listener) => listener?.close()).catch(failed);
    if (reason !== PENDING) await this.release(id);
  }

  /** @returns the release function */
  private hold({ outputs, drvPath }: SandboxRecord): () => void {
    return this.broker.holdUnsettled(outputs, drvPath);
  }

  private async release(id: string): Promise<void> {
    await this.linker.release(id).catch((error: Error) => {
      // The linker removes the folder a little later in any case.
      this.log.debug({ sandbox: id, error: error.message }, "the linker did not release a sandbox");
    });
  }

  private recordOf(id: string): SandboxRecord {
    return readRecord(`${this.folder}/${id}/sandbox.json`);
  }
}

function readRecord(path: string): SandboxRecord {
  const text = readFileSync(path, "utf8");
  if (text.length > MAX_RECORD) throw new Error(`${path} is too long`);
  return parseSandboxRecord(text);
}
