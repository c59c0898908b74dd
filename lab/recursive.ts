/** A daemon with our hooks, the linker as root, and the service as its own user: recursive Nix as people run it. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { clientRegistry, clientSettings } from "../src/root/client-settings.ts";
import { type AuditRow, startBroker, type TestBroker } from "./broker.ts";
import { type Daemon, type DaemonOptions, lab, type NixVersion } from "./lab.ts";
import { until, watchPart, wordsOf } from "./parts.ts";
import { program } from "./program.ts";
import { tallied } from "./tally.ts";

const node = process.execPath;
/** As seen beside the daemon; the static socket is in `s` there. */
const serviceFolder = "/var/lib/nix-broker/service";

export interface RecursiveOptions extends DaemonOptions {
  /** More lines of the service's configuration. */
  readonly serviceConfig?: string;
  /** More lines of root.conf. */
  readonly rootConfig?: string;
  /**
   * False: no pre-build hook; every build sees one static socket, with view `build`, and the client settings
   * that the hook would provide. The post-build hook stays.
   */
  readonly hooks?: boolean;
}

/** Every version of the daemon, with the two ways by which a build gets a socket. */
export const ways = lab.versions.flatMap((version) =>
  (["hooks", "static socket"] as const).map((way) => [version, way] as const),
);

export class RecursiveLab {
  readonly daemon: Daemon;
  private readonly options: RecursiveOptions;
  private linker: ChildProcess | undefined;
  broker: TestBroker | undefined;

  private constructor(daemon: Daemon, options: RecursiveOptions) {
    this.daemon = daemon;
    this.options = options;
  }

  static async start(version: NixVersion, options: RecursiveOptions = {}): Promise<RecursiveLab> {
    const isStatic = options.hooks === false;
    const preBuildHook = isStatic ? "" : `pre-build-hook = ${program.preBuildHook}\n`;
    const postBuildHook = `post-build-hook = ${program.postBuildHook}\n`;
    const staticSocket = isStatic
      ? [`/nix/var/nix/daemon-socket=${serviceFolder}/s`, "/etc/nix=/etc/nix-inside"]
      : [];
    const daemon = await lab.start(version, {
      ...options,
      systemFeatures: ["nix-broker", ...(options.systemFeatures ?? [])],
      config: `${preBuildHook}${postBuildHook}${options.config ?? ""}`,
      sandboxPaths: [...staticSocket, ...(options.sandboxPaths ?? [])],
      env: { NIX_BROKER_NODE: node, ...options.env },
    });
    try {
      return await RecursiveLab.startBeside(daemon, options);
    } catch (error) {
      await daemon.stop();
      throw error;
    }
  }

  private static async startBeside(daemon: Daemon, options: RecursiveOptions): Promise<RecursiveLab> {
    mkdirSync(daemon.hostPath("/etc/nix-broker"), { recursive: true });
    writeFileSync(daemon.hostPath("/etc/nix-broker/root.conf"), options.rootConfig ?? "");
    mkdirSync(daemon.hostPath("/etc/nix-inside"));
    writeFileSync(daemon.hostPath("/etc/nix-inside/nix.conf"), clientSettings);
    writeFileSync(daemon.hostPath("/etc/nix-inside/registry.json"), clientRegistry);
    const made = new RecursiveLab(daemon, options);
    await made.startLinker();
    await made.startService();
    return made;
  }

  /** The linker's process id, on the machine; undefined when it has ended. */
  get linkerPid(): number | undefined {
    const { linker } = this;
    return linker && linker.exitCode === null && linker.signalCode === null ? linker.pid : undefined;
  }

  /** @param nodeOptions such as a module that is loaded first and makes it fail */
  async startLinker(nodeOptions: readonly string[] = []): Promise<void> {
    const socket = this.daemon.hostPath("/run/nix-broker/linker.sock");
    // A linker that was killed leaves its own, which must not be taken for the new one's.
    rmSync(socket, { force: true });
    this.linker = this.daemon.spawn([node, ...nodeOptions, program.root, "linker"]);
    this.linker.stderr?.on("data", (text: Buffer) => process.stderr.write(text));
    watchPart(this.daemon, "the linker", this.linker, wordsOf(this.linker));
    await tallied(
      "starting linkers",
      until(() => existsSync(socket)),
    );
  }

  async startService(env: Readonly<Record<string, string>> = {}): Promise<void> {
    this.broker = await startBroker(this.daemon, {
      env,
      config: this.options.serviceConfig ?? "",
      runtimeDir: "/run/nix-broker",
      folder: serviceFolder,
      ...(this.options.hooks === false && { view: "build", allow: "@nixbld" }),
    });
  }

  async stopLinker(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const linker = this.linker;
    if (!linker || linker.exitCode !== null || linker.signalCode !== null) return;
    const gone = once(linker, "exit");
    linker.kill(signal);
    await gone;
  }

  audit(...filters: string[]): Promise<AuditRow[]> {
    if (!this.broker) throw new Error("the service does not run");
    return this.broker.audit(...filters);
  }

  async stop(): Promise<void> {
    await this.broker?.stop();
    await this.stopLinker();
    await this.daemon.stop();
  }
}
