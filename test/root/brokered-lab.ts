/** A lab daemon with our hooks and linker, and a stand-in for the service: a socket in every sandbox that pipes to the daemon. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { heard } from "../../lab/heard.ts";
import { type Daemon, type DaemonOptions, lab, type NixVersion } from "../../lab/lab.ts";
import { until, watchPart, whilePartsLive, wordsOf } from "../../lab/parts.ts";
import { program } from "../../lab/program.ts";
import { parseSandboxRecord, type SandboxRecord } from "../../src/contract/sandbox-record.ts";
import { LinkerClient } from "../../src/service/builds/linker-client.ts";

const node = process.execPath;

export interface BrokeredOptions extends DaemonOptions {
  /** More lines of root.conf. */
  readonly rootConfig?: string;
  /** Default: both. */
  readonly hooks?: boolean;
}

export class BrokeredLab {
  /** The Node that hooks run on, as they see it. */
  static readonly node = node;
  static readonly preBuildHook = program.preBuildHook;
  static readonly postBuildHook = program.postBuildHook;
  readonly daemon: Daemon;
  readonly linker: LinkerClient;
  private linkerProcess: ChildProcess | undefined;
  private readonly servers = new Map<string, Server>();
  private watching: NodeJS.Timeout | undefined;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
    this.linker = new LinkerClient(this.runtime("linker.sock"), { patience: 60_000 });
  }

  static async start(version: NixVersion, options: BrokeredOptions = {}): Promise<BrokeredLab> {
    const { rootConfig = "", hooks = true, ...rest } = options;
    const hookLines = hooks
      ? `pre-build-hook = ${BrokeredLab.preBuildHook}\npost-build-hook = ${BrokeredLab.postBuildHook}\n`
      : "";
    const daemon = await lab.start(version, {
      ...rest,
      systemFeatures: ["nix-broker", ...(rest.systemFeatures ?? [])],
      config: `${hookLines}${rest.config ?? ""}`,
      env: { NIX_BROKER_NODE: node, ...rest.env },
    });
    mkdirSync(daemon.hostPath("/etc/nix-broker"), { recursive: true });
    writeFileSync(daemon.hostPath("/etc/nix-broker/root.conf"), rootConfig);
    return new BrokeredLab(daemon);
  }

  /** A path below the runtime folder, on the machine. */
  runtime(path: string): string {
    return this.daemon.hostPath(`/run/nix-broker/${path}`);
  }

  roots(id: string): string {
    return this.daemon.hostPath(`/nix/var/nix/gcroots/nix-broker/${id}`);
  }

  async startLinker(): Promise<void> {
    this.linkerProcess = this.daemon.spawn([node, program.root, "linker"]);
    this.linkerProcess.stderr?.on("data", (text: Buffer) => process.stderr.write(text));
    watchPart(this.daemon, "the linker", this.linkerProcess, wordsOf(this.linkerProcess));
    await whilePartsLive(this.linker.status());
  }

  /** A linker that is not in the daemon's mount namespace. */
  async startLinkerOnMachine(config: string): Promise<void> {
    const argv = [program.root, "--config", config, "linker"];
    this.linkerProcess = spawn(node, argv, { stdio: ["ignore", "ignore", "pipe"] });
    watchPart(this.daemon, "the linker", this.linkerProcess, wordsOf(this.linkerProcess));
    await whilePartsLive(this.linker.status());
  }

  /** Ends the linker's process itself; what `spawn` started became it by exec. */
  async killLinker(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.linkerProcess;
    if (!child) return;
    this.linkerProcess = undefined;
    const gone = once(child, "exit");
    child.kill(signal);
    await gone;
  }

  /** Puts a socket into the folder of each sandbox, as the service does. */
  startStandIn(): void {
    const look = (): void => {
      for (const id of this.sandboxIds())
        if (!this.servers.has(id) && existsSync(this.runtime(`sandboxes/${id}/socket.d`))) this.serve(id);
    };
    this.watching = setInterval(look, 5);
  }

  stopStandIn(): void {
    clearInterval(this.watching);
    for (const server of this.servers.values()) server.close();
    this.servers.clear();
  }

  private serve(id: string): void {
    const folder = this.runtime(`sandboxes/${id}/socket.d`);
    const server = createServer((client) => {
      const upstream = connect(this.daemon.socket);
      client.pipe(upstream).pipe(client);
      client.on("error", () => upstream.destroy());
      upstream.on("error", () => client.destroy());
    });
    this.servers.set(id, server);
    server.listen(`${folder}/.socket`, () => {
      chmodSync(`${folder}/.socket`, 0o666);
      renameSync(`${folder}/.socket`, `${folder}/socket`);
    });
  }

  sandboxIds(): string[] {
    const folder = this.runtime("sandboxes");
    return existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith(".")) : [];
  }

  record(id: string): SandboxRecord {
    return parseSandboxRecord(readFileSync(this.runtime(`sandboxes/${id}/sandbox.json`), "utf8"));
  }

  ended(id: string): Record<string, unknown> | undefined {
    const path = this.runtime(`sandboxes/${id}/ended`);
    return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
  }

  /**
   * The id of the sandbox of a derivation with that name, once there is one that has not ended. Its hook may still wait for
   * the linker.
   */
  async sandboxNamed(name: string): Promise<string> {
    const isIt = (id: string): boolean => {
      try {
        return this.record(id).drvPath.endsWith(`-${name}.drv`) && this.ended(id) === undefined;
      } catch {
        // The linker removed it since it was listed.
        return false;
      }
    };
    return until(() => this.sandboxIds().find(isIt));
  }

  /** What the service does when a sandbox gains a path: root it, then have it linked. */
  gain(id: string, path: string): Promise<void> {
    const base = path.slice(path.lastIndexOf("/") + 1);
    symlinkSync(path, `${this.roots(id)}/${base}`);
    return heard(this.linker.link(id, path));
  }

  /** Adds a file or folder that is beside the daemon to its store. */
  async add(path: string): Promise<string> {
    return this.mustRun(["nix-store", "--add", path]);
  }

  /** @returns what the command printed. */
  async mustRun(argv: readonly string[], env: Record<string, string> = {}): Promise<string> {
    const { code, stdout, stderr } = await this.daemon.run(argv, { env });
    if (code !== 0) throw new Error(`${argv.join(" ")} ended with ${code}: ${stderr}`);
    return stdout.trim();
  }

  async references(path: string): Promise<string[]> {
    const text = await this.mustRun(["nix-store", "-q", "--references", path]);
    return text === "" ? [] : text.split("\n");
  }

  async stop(): Promise<void> {
    this.stopStandIn();
    this.linker.close();
    await this.killLinker();
    await this.daemon.stop();
  }
}
