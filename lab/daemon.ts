import type { ChildProcess } from "node:child_process";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  chownSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { basename, join } from "node:path";
import { OLDEST_MINOR, versionToWire } from "../src/protocol/version.ts";
import {
  type CommandOptions,
  type CommandResult,
  LabError,
  machinePath,
  mustRun,
  runCommand,
  startProcess,
} from "./command.ts";
import { type BesideOptions, type DaemonOptions, nixConf } from "./daemon-options.ts";
import { heard } from "./heard.ts";
import { holderScript, layOutRoot, systemSandboxPaths } from "./mounts.ts";
import { forgetParts, until, watchPart } from "./parts.ts";
import { childrenOf, processesWithMountsOf } from "./processes.ts";
import { releaseSlot, type Slot, slotMarker, takeSlot } from "./slot.ts";
import { buildUserBase, checkBuildUsers, type LabUser, labUser, labUsers, writeEtc } from "./system.ts";
import { tallied } from "./tally.ts";
import { cacheInside, type InstalledVersion, installedVersion, type NixVersion } from "./versions.ts";

/** What `Daemon.build` takes besides the expression. */
export interface BuildOptions extends BesideOptions {
  /** More arguments of nix-build. */
  readonly args?: readonly string[];
}

/** What nix-build made and said. */
export interface BuildResult {
  /** nix-build's exit code: 0 after `build`, anything after `tryBuild`. */
  readonly code: number | null;
  /** The paths of the outputs that nix-build printed. */
  readonly outPaths: readonly string[];
  /** The first of them, or "". */
  readonly out: string;
  /** nix-build's standard error: builders' log lines and messages. */
  readonly log: string;
}

/** A running nix-daemon with a /nix of its own. */
export class Daemon {
  readonly version: NixVersion;
  /** The whole version number, such as "2.26.3". */
  readonly fullVersion: string;
  /** The folder on the machine that is the daemon's /nix: its store is `${root}/store`. */
  readonly root: string;
  /** The daemon's Unix socket, as a path on the machine. */
  readonly socket: string;
  /** The folder on the machine that is the daemon's `/`, without what is mounted there: see `hostPath`. */
  readonly rootFolder: string;
  /** Whether the daemon runs as an ordinary user in a user namespace, without build users. */
  readonly rootless: boolean;

  private readonly installed: InstalledVersion;
  private readonly slot: Slot;
  private readonly options: DaemonOptions;
  private holder: ChildProcess | undefined;
  private process: ChildProcess | undefined;

  constructor(installed: InstalledVersion, slot: Slot, options: DaemonOptions, rootless: boolean) {
    this.version = installed.version;
    this.fullVersion = installed.fullVersion;
    this.root = join(options.memory ? slot.memoryFolder : slot.folder, "nix");
    this.socket = join(this.root, "var/nix/daemon-socket/socket");
    this.rootFolder = join(slot.folder, "root");
    this.rootless = rootless;
    this.installed = installed;
    this.slot = slot;
    this.options = options;
  }

  /** The daemon's process id, on the machine. */
  get pid(): number {
    const pid = this.process?.pid;
    if (pid === undefined) throw new LabError("The daemon does not run.");
    return pid;
  }

  /** The pid of a process that stays in the daemon's mount namespace while the lab system lives. */
  get namespacePid(): number {
    const pid = this.holder?.pid;
    if (pid === undefined) throw new LabError("The daemon was stopped, or never set up.");
    return pid;
  }

  /** Where on the machine a path beside the daemon is, for /nix, and for what is not mounted there (/etc, /run, /tmp, /var). */
  hostPath(path: string): string {
    if (path === "/nix" || path.startsWith("/nix/")) return join(this.root, path.slice("/nix".length));
    return join(this.rootFolder, path);
  }

  /** What the daemon printed so far. */
  log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, "utf8") : "";
  }

  private get logFile(): string {
    return join(this.slot.folder, "daemon.log");
  }

  /** Lays out the lab system, makes its namespace and starts the daemon in it. Called by the lab. */
  async setUp(): Promise<void> {
    const mounts = this.layOut();
    if (this.rootless) await giveToOrdinaryUser(this.slot);
    await this.hold(holderScript(this.rootFolder, mounts, !this.rootless));
    await this.startDaemon();
  }

  private layOut(): ReturnType<typeof layOutRoot> {
    const slot = this.slot;
    const options = this.options;
    const buildUsers = this.rootless ? 0 : (options.buildUsers ?? 16);
    checkBuildUsers(buildUsers);
    const store = join(this.root, "store");
    mkdirSync(store, { recursive: true });
    // As after an installation: without it, 2.34 without root uses a store in its home instead.
    mkdirSync(join(this.root, "var/nix"), { recursive: true });
    const mounts = layOutRoot(this.rootFolder, this.installed.root, this.root, options.binds ?? []);
    writeEtc(join(this.rootFolder, "etc"), slot.number, buildUsers);
    this.writeConfig(options.config ?? "");
    for (const { uid, gid, home } of labUsers) {
      if (home === "/nonexistent" || uid === 0) continue;
      mkdirSync(join(this.rootFolder, home), { recursive: true, mode: 0o755 });
      if (!this.rootless) chownSync(join(this.rootFolder, home), uid, gid);
    }
    if (!this.rootless) {
      chownSync(store, 0, buildUserBase(slot.number));
      chmodSync(store, 0o1775);
    }
    return mounts;
  }

  private writeConfig(config: string): void {
    const paths = systemSandboxPaths(this.installed.root);
    const text = nixConf({ ...this.options, config }, paths, this.rootless, this.slot.number);
    writeFileSync(join(this.rootFolder, "etc/nix/nix.conf"), text);
  }

  private async hold(script: string): Promise<void> {
    const unshare = this.rootless
      ? [...ordinaryUser(), "unshare", "-r", "-m", "--"]
      : ["unshare", "-m", "--"];
    const holder = startProcess([...unshare, "sh", "-c", script]);
    this.holder = holder;
    let errors = "";
    holder.stderr?.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    await new Promise<void>((resolve, reject) => {
      holder.stdout?.once("data", () => resolve());
      holder.once("error", reject);
      holder.once("close", () => reject(new LabError(`Cannot set up the mounts of a lab system: ${errors}`)));
    });
    // None of this may keep a finished test process alive; when that ends, so does the holder.
    holder.unref();
    for (const pipe of [holder.stdin, holder.stdout, holder.stderr]) unrefPipe(pipe);
  }

  private async startDaemon(): Promise<void> {
    const log = openSync(this.logFile, "a");
    const [program = "", ...args] = this.commandLine(["nix-daemon", "--daemon"], {
      env: { NIX_REMOTE: "", ...this.options.env },
      cwd: "/",
    });
    const daemon = spawn(program, args, {
      env: { PATH: machinePath },
      detached: true,
      stdio: ["ignore", log, log],
    });
    closeSync(log);
    daemon.unref();
    this.process = daemon;
    watchPart(this, `nix-daemon ${this.fullVersion}`, daemon, () => this.log());
    await until(() => isServed(this.socket));
  }

  /** The command line, on the machine, that runs `argv` beside the daemon: for callers that spawn it themselves. */
  commandLine(argv: readonly string[], options: BesideOptions): string[] {
    const user = labUser(options.user ?? (this.rootless ? "alice" : "root"));
    const client = options.client ?? this.version;
    const ownPath = "/usr/sbin:/usr/bin:/sbin:/bin";
    const environment = {
      PATH: client === this.version ? ownPath : `${cacheInside}/${client}/bin:${ownPath}`,
      HOME: user.home,
      USER: user.name,
      NIX_REMOTE: "daemon",
      ...options.env,
    };
    const variables = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    return [...this.enter(user), "/usr/bin/env", "-i", "-C", options.cwd ?? "/tmp", ...variables, ...argv];
  }

  /** The prefix of a command line that enters the daemon's namespaces as a user. */
  private enter({ name, uid, gid }: LabUser): string[] {
    const target = `--target=${this.namespacePid}`;
    if (!this.rootless) return ["nsenter", target, "--mount", "--root", `--setuid=${uid}`, `--setgid=${gid}`];
    if (name !== "alice") throw new LabError(`Beside a rootless daemon there is no ${name}, only alice.`);
    // The mounts belong to a user namespace where alice is root. There Nix would try things that only the
    // real root may do, so everything runs one namespace further down, where alice is herself.
    return [
      ...ordinaryUser(),
      ...["nsenter", target, "--user", "--preserve-credentials", "--mount", "--root"],
      ...["/usr/bin/unshare", "--user", `--map-user=${uid}`, `--map-group=${gid}`],
    ];
  }

  /**
   * Runs a command beside the daemon: in its mount namespace, with its Nix and its /nix, but with the machine's
   * pids and network. `NIX_REMOTE` is "daemon" unless `env` says otherwise ("" opens the store directly).
   */
  run(argv: readonly string[], options: BesideOptions = {}): Promise<CommandResult> {
    const ended = runCommand(this.commandLine(argv, options), commandOptions(options));
    return heard(tallied(basename(argv[0] ?? ""), ended));
  }

  /** Starts a command beside the daemon that keeps running: a service, a hostile client. It ends with `stop`. */
  spawn(argv: readonly string[], options: Omit<BesideOptions, "input" | "timeoutMs"> = {}): ChildProcess {
    return startProcess(this.commandLine(argv, options));
  }

  /**
   * Builds an expression, or a file beside the daemon, through the daemon as the ordinary user alice.
   *
   * @throws LabError with the log if that fails.
   */
  build(what: string | { readonly file: string }, options: BuildOptions = {}): Promise<BuildResult> {
    const built = this.tryBuild(what, options).then((result) => {
      if (result.code !== 0) throw new LabError(`nix-build ended with ${result.code}:\n${result.log}`);
      return result;
    });
    return heard(built);
  }

  /** Like `build`, but returns also when nix-build fails. */
  tryBuild(what: string | { readonly file: string }, options: BuildOptions = {}): Promise<BuildResult> {
    const fromInput = typeof what === "string";
    const argv = ["nix-build", "--no-out-link", ...(options.args ?? []), fromInput ? "-" : what.file];
    const ended = this.run(argv, { user: "alice", ...options, ...(fromInput && { input: what }) });
    const built = ended.then(({ code, stdout, stderr }) => {
      const outPaths = stdout.split("\n").filter((line) => line !== "");
      return { code, outPaths, out: outPaths[0] ?? "", log: stderr };
    });
    return heard(built);
  }

  /**
   * Resolves once a builder has made a file of that name in its build folder, which is in one place or another, by
   * version. It is looked for from outside: a command beside the daemon takes as long as what it waits for.
   */
  async fileInBuild(name: string): Promise<void> {
    const folders = ["/tmp", "/nix/var/nix/builds"].map((path) => this.hostPath(path));
    await until(() => folders.some((folder) => holdsFile(folder, name)));
  }

  /** The pids of everything that runs beside the daemon and in its sandboxes, including the daemon and its workers. */
  processes(): number[] {
    return processesWithMountsOf(slotMarker(this.slot.number)).filter((pid) => pid !== this.namespacePid);
  }

  /**
   * Kills the daemon with SIGKILL; its namespace, store and socket file stay.
   *
   * @param workers whether the processes of its connections are killed, too; otherwise they live on, as they would in reality
   */
  async kill(workers = false): Promise<void> {
    const daemon = this.process;
    this.process = undefined;
    if (daemon?.pid === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return;
    const pids = workers ? childrenOf(daemon.pid) : [];
    const gone = once(daemon, "exit");
    daemon.kill("SIGKILL");
    for (const pid of pids) killIfThere(pid);
    await gone;
  }

  /**
   * Kills the daemon and its workers, and starts it again, with other lines of nix.conf if given.
   *
   * @param workers as for `kill`
   */
  async restart(config?: string, workers = true): Promise<void> {
    await this.kill(workers);
    if (config !== undefined) this.writeConfig(config);
    await this.startDaemon();
  }

  /** Ends the daemon and everything in its namespace or sandboxes, and removes its folders. May be called twice. */
  async stop(): Promise<void> {
    if (this.holder === undefined) return;
    this.holder = undefined;
    this.process = undefined;
    forgetParts(this);
    await tallied("stopping daemons", releaseSlot(this.slot));
  }
}

/** Starts a daemon; it belongs to this process and ends with it at the latest. */
export async function startDaemon(
  version: NixVersion,
  options: DaemonOptions = {},
  rootless = false,
): Promise<Daemon> {
  const installed = installedVersion(version);
  if (!rootless && process.getuid?.() !== 0) {
    throw new LabError(
      "Starting a nix-daemon with build users needs root; without it there is startRootless.",
    );
  }
  const slot = await takeSlot();
  const daemon = new Daemon(installed, slot, options, rootless);
  try {
    await tallied("starting daemons", daemon.setUp());
    return daemon;
  } catch (error) {
    await daemon.stop();
    await releaseSlot(slot);
    throw error;
  }
}

async function giveToOrdinaryUser(slot: Slot): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const { uid, gid } = labUser("alice");
  await mustRun(["chown", "-R", `${uid}:${gid}`, slot.folder, slot.memoryFolder]);
}

/** The prefix of a command that turns root into an ordinary user; empty for anyone who already is one. */
function ordinaryUser(): string[] {
  if (process.getuid?.() !== 0) return [];
  const { uid, gid } = labUser("alice");
  return ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", "--"];
}

function commandOptions({ input, timeoutMs }: CommandOptions): CommandOptions {
  return { ...(input !== undefined && { input }), ...(timeoutMs !== undefined && { timeoutMs }) };
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

function unrefPipe(pipe: unknown): void {
  // Child process pipes are sockets, whose type the stream types do not show.
  if (typeof pipe === "object" && pipe !== null && "unref" in pipe && typeof pipe.unref === "function")
    pipe.unref();
}

/**
 * Greets the daemon, and resolves when the process that it starts for that has ended: it has made the store's database by then.
 * Clients that have it made at the same time would be hung up on.
 *
 * @returns whether there was a daemon
 */
function isServed(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = connect(socket);
    let connected = false;
    connection.on("connect", () => {
      connected = true;
      connection.end(greeting);
    });
    connection.on("error", () => {});
    connection.on("close", () => resolve(connected));
    connection.resume();
  });
}

/** The magic number, the oldest version of the protocol, and no CPU: up to that, 2.3 does not open its store. */
const greeting = Buffer.from(
  BigUint64Array.of(0x6e697863n, BigInt(versionToWire(OLDEST_MINOR)), 0n, 0n).buffer,
);

function holdsFile(folder: string, name: string): boolean {
  try {
    return readdirSync(folder, { recursive: true, encoding: "utf8" }).some((path) => basename(path) === name);
  } catch {
    // Not made yet, or a build folder went while it was listed.
    return false;
  }
}
