/** The static sockets: who may use them, and where they come from (the configuration, or the service manager). */
import { dirname } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Config, ListenConfig } from "../config/config.ts";
import type { ActivatedSocket } from "../host/activation.ts";
import type { ByteStream } from "../host/byte-stream.ts";
import { type Listener, type ListenOptions, listenOnDescriptor, listenOnPath } from "../host/listen.ts";
import { makeFoldersBelow } from "../host/make-folders.ts";
import { type AllowedUids, UserDatabase } from "../host/users.ts";
import { CLIENT_STREAM } from "../sandbox/connection.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import type { Broker } from "./broker.ts";
import { serveBuild } from "./build-clients.ts";
import type { LinkerClient } from "./builds/linker-client.ts";
import type { BuildSandboxes } from "./builds/sandboxes.ts";
import type { SocketState } from "./control/messages.ts";
import type { Log } from "./log.ts";
import { JailFolders, type OpenedJail } from "./named-jails.ts";
import { PerUser } from "./per-user.ts";

export interface ListenerServices {
  readonly broker: Broker;
  readonly builds: BuildSandboxes;
  readonly linker: LinkerClient;
  readonly log: Log;
}

/** Anyone may connect, because the uid is checked afterwards: the socket's mode cannot name users. */
const SOCKET_MODE = 0o666;
/** Whoever mounts the folder into a sandbox has to find it. */
const FOLDER_MODE = 0o755;
/** How often to look for jails whose lifetime is over. */
const CLOCK_MS = 1000;

/** A `[[listen]]` entry in force. */
interface StaticSocket {
  readonly entry: ListenConfig;
  readonly sandbox?: Sandbox;
  readonly listener?: Listener;
  /** Why it is not open. */
  readonly failure?: Error;
  /** Decides about a client. */
  admit(stream: ByteStream): void;
}

export class StaticSockets {
  private readonly services: ListenerServices;
  private readonly runtimeDir: string;
  private readonly jails: JailFolders;
  private readonly open = new Map<string, StaticSocket>();
  /** The latest change of what is open: they are made one after the other. */
  private change: Promise<void> = Promise.resolve();
  /** Looks for jails whose lifetime is over, if there are any with one. */
  private clock: NodeJS.Timeout | undefined;

  constructor(config: Config, services: ListenerServices) {
    this.services = services;
    this.runtimeDir = config.runtime.dir;
    this.jails = new JailFolders(config.runtime.stateDir);
  }

  /**
   * Opens every static socket. A socket passed by the service manager is used for the entry with its name, which is
   * the path (`FileDescriptorName=`), or otherwise in order. One that cannot be opened is told, and the others serve.
   */
  async start(entries: readonly ListenConfig[], activated: readonly ActivatedSocket[]): Promise<void> {
    const left = [...activated];
    this.endOtherJails(entries);
    for (const entry of entries) await this.begin(entry, takeSocket(left, entry));
    for (const { name } of left)
      this.services.log.warn({ name }, "the service manager passed a socket that has no [[listen]] entry");
  }

  /**
   * Opens what is new, closes what is gone, and tries again what could not be opened. Where an entry has changed, its
   * next clients get a new sandbox; those that are connected keep theirs.
   */
  reload(entries: readonly ListenConfig[]): Promise<void> {
    return this.inTurn(() => this.takeUp(entries));
  }

  private async takeUp(entries: readonly ListenConfig[]): Promise<void> {
    const wanted = new Map(entries.map((entry) => [entry.path, entry]));
    for (const [path, socket] of this.open) {
      if (wanted.has(path)) continue;
      this.open.delete(path);
      await socket.listener?.close();
      const { jail } = socket.entry;
      if (jail) await this.services.broker.endJail(jail.name, "it was removed from [jails]");
      else this.retire(socket);
      this.services.log.info({ socket: path }, "no longer listening");
    }
    this.endOtherJails(entries);
    for (const entry of entries) {
      const before = this.open.get(entry.path);
      if (before?.failure === undefined && isDeepStrictEqual(before?.entry, entry)) continue;
      await this.begin(entry, undefined, before?.listener);
      if (before) this.retire(before);
    }
  }

  /**
   * Ends a named jail: its connections are closed, and its roots let go of. Its socket stays, for the next one.
   *
   * @throws Error when none has this name
   */
  async endJail(name: string): Promise<void> {
    const names = [...this.open.values()].flatMap(({ entry }) => entry.jail?.name ?? []);
    if (!names.includes(name))
      throw new Error(
        `no jail is named "${name}": the configuration has ${names.length === 0 ? "none ([jails.NAME])" : names.join(", ")}`,
      );
    await this.inTurn(() => this.renew(name, "an administrator ended it"));
  }

  private async renew(name: string, reason: string): Promise<void> {
    const socket = [...this.open.values()].find(({ entry }) => entry.jail?.name === name);
    // A reload may have removed it meanwhile.
    if (!socket) return;
    await this.services.broker.endJail(name, reason);
    this.jails.remove(name);
    await this.begin(socket.entry, undefined, socket.listener);
    this.services.log.info({ jail: name, reason }, "a jail was ended, and a new one begins");
  }

  private async endOverdue(): Promise<void> {
    const now = Date.now();
    for (const { sandbox } of [...this.open.values()]) {
      const { name = "", endsAt } = sandbox?.jail ?? {};
      if (endsAt && endsAt.getTime() <= now) await this.renew(name, "its lifetime is over");
    }
  }

  private endOtherJails(entries: readonly ListenConfig[]): void {
    const names = new Set(entries.flatMap(({ jail }) => jail?.name ?? []));
    try {
      for (const jail of this.jails.removeOthers(names))
        this.services.log.info({ jail }, "the roots of a jail that is no longer in [jails] were released");
    } catch (error) {
      this.services.log.error(
        { error: (error as Error).message },
        "the roots of jails that are no longer in [jails] cannot be released",
      );
    }
  }

  private inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.change.then(work);
    this.change = done.catch(() => undefined);
    return done;
  }

  async close(): Promise<void> {
    clearInterval(this.clock);
    await Promise.all([...this.open.values()].map(({ listener }) => listener?.close()));
  }

  get states(): SocketState[] {
    return [...this.open.values()].map(({ entry, failure }) => ({
      path: entry.path,
      profile: entry.profile.name,
      error: failure?.message ?? null,
    }));
  }

  /** Why a socket is not open. */
  failureAt(path: string): Error | undefined {
    return this.open.get(path)?.failure;
  }

  /** @param listener the one that is open there already */
  private async begin(
    entry: ListenConfig,
    passed: ActivatedSocket | undefined,
    listener?: Listener,
  ): Promise<void> {
    const { log } = this.services;
    const { path, profile, view } = entry;
    try {
      // First: a socket that would not know whom to let in must not be there.
      const allowed = new UserDatabase().resolve(entry.allowUids);
      const jail = entry.jail && this.jails.open(entry.jail);
      const opened = listener ?? (await this.listen(entry, passed));
      this.open.set(path, { entry, listener: opened, ...admission(entry, allowed, this.services, jail) });
      if (jail?.endsAt) this.clock ??= setInterval(() => this.tick(), CLOCK_MS).unref();
      const activated = passed !== undefined;
      if (!listener) log.info({ socket: path, profile: profile.name, view, activated }, "listening");
      else
        log.info({ socket: path, profile: profile.name, view }, "the next clients get this profile and view");
    } catch (error) {
      const failure = error as Error;
      await listener?.close();
      this.open.set(path, { entry, failure, admit: (stream) => stream.destroy() });
      log.error(
        { socket: path, error: failure.message },
        "a static socket cannot be opened: nobody is served there",
      );
    }
  }

  private tick(): void {
    this.inTurn(() => this.endOverdue()).catch((error: Error) =>
      this.services.log.error({ error: error.message }, "a jail whose lifetime is over cannot be ended"),
    );
  }

  /** @throws ListenError, or the system's error when its folder cannot be made */
  private listen({ path }: ListenConfig, passed: ActivatedSocket | undefined): Promise<Listener> {
    const { log } = this.services;
    const options: ListenOptions = {
      mode: SOCKET_MODE,
      stream: CLIENT_STREAM,
      onAcceptError: (error) =>
        log.warn({ socket: path, error: error.message }, "cannot accept a connection"),
    };
    // Looked up for each: a reload changes what is admitted, and not the socket.
    const onStream = (stream: ByteStream): void => {
      const socket = this.open.get(path);
      if (socket) socket.admit(stream);
      else stream.destroy();
    };
    if (passed) return listenOnDescriptor(passed.fd, onStream, options);
    this.makeFolder(dirname(path));
    return listenOnPath(path, onStream, options);
  }

  /** After a reboot there is nothing below the runtime folder. */
  private makeFolder(folder: string): void {
    try {
      makeFoldersBelow(this.runtimeDir, folder, FOLDER_MODE);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== "EACCES") throw error;
      throw new Error(
        `The folder ${folder} does not exist, and this process (user ${process.getuid?.()}) may not make it (${message.split(",", 1)[0]}): ` +
          `use a folder below ${this.runtimeDir}/shared, which is the service's own, or make it as root with tmpfiles.d`,
        { cause: error },
      );
    }
  }

  /** Its clients stay. */
  private retire({ sandbox }: StaticSocket): void {
    if (sandbox)
      void this.services.broker.retireSandbox(sandbox, "its [[listen]] entry was changed or removed");
  }
}

function takeSocket(left: ActivatedSocket[], entry: ListenConfig): ActivatedSocket | undefined {
  const named = left.findIndex(({ name }) => name === entry.path);
  const at = named >= 0 ? named : left.findIndex(({ name }) => !name.startsWith("/"));
  return at < 0 ? undefined : left.splice(at, 1)[0];
}

/** Creates the sandbox of a static socket, and decides about each client. */
function admission(
  entry: ListenConfig,
  allowed: AllowedUids,
  services: ListenerServices,
  jail: OpenedJail | undefined,
): Pick<StaticSocket, "admit"> & { readonly sandbox: Sandbox } {
  const { broker, log } = services;
  const { view, profile } = entry;
  const sandbox = broker.staticSandbox({
    profile,
    view: view === "build" ? "empty" : view,
    socket: entry.path,
    jail,
  });
  const unidentified = new PerUser();
  const admit = (stream: ByteStream): void => {
    const uid = stream.peer?.uid ?? -1;
    if (!allowed.anyone && !allowed.uids.has(uid)) {
      log.warn({ socket: entry.path, uid }, "refused a user that allow_uids does not name");
      broker.refuse(stream, sandbox, `user ${uid} may not use this socket (allow_uids)`);
    } else if (view === "build") {
      // As many as its sandbox may have: a build that keeps connecting must not block others' access to the linker.
      const { connections } = broker.config.hooks.profile.limits;
      const identified = unidentified.enter(uid, connections);
      if (!identified) {
        sandbox.quota.onLimit("connections");
        const reason = `more than ${connections} clients of user ${uid} wait (limits.connections)`;
        broker.refuse(stream, sandbox, reason);
        return;
      }
      serveBuild(stream, sandbox, services, identified).catch((error: Error) => {
        log.error({ socket: entry.path, error: error.message }, "a client could not be served");
        stream.destroy();
      });
    } else void broker.serve(stream, sandbox);
  };
  return { sandbox, admit };
}
