/**
 * The linker: the root process that makes store paths visible in running sandboxes. The service asks over a
 * Unix socket; its requests are checked as if they came from an enemy. Sandboxes are known only from root's
 * own `sandbox.json`. Protocol and folders: docs/linker-and-hooks.md.
 */
import { type FSWatcher, watch } from "node:fs";
import type { Server } from "node:net";
import { LinkError } from "../contract/link-error.ts";
import type { LinkerRequest, LinkerStatus } from "../contract/linker-protocol.ts";
import { type RootConfig, type ServiceAccount, serviceAccount } from "../contract/root-config.ts";
import {
  ensureTree,
  hooksSocket,
  linkerSocket,
  type SandboxId,
  sandboxesFolder,
} from "../contract/runtime-tree.ts";
import { errorText } from "../contract/trusted-file.ts";
import { type Derivation, DerivationError } from "../store/derivation.ts";
import type { StorePath } from "../store/store-path.ts";
import { identifyBuild } from "./build-identity.ts";
import { DaemonQuery } from "./daemon-query.ts";
import { readAskingDerivation } from "./derivation-file.ts";
import { hasCaller } from "./hook-caller.ts";
import { listenForHooks } from "./hook-server.ts";
import { Hooks } from "./hooks.ts";
import { listenForService } from "./linker-server.ts";
import { makeNoDaemonFolder } from "./no-daemon.ts";
import { type OptIn, optIn, SYSTEM_FEATURE } from "./opt-in.ts";
import { daemonWorker } from "./process-tree.ts";
import { Questions } from "./questions.ts";
import { forgetRecord, judgement, recordDurably, recordOf, registerSandbox } from "./registration.ts";
import { SandboxTable } from "./sandbox-table.ts";
import type { Settle } from "./settlers.ts";
import { storeProblem } from "./store-mount.ts";
import { Turns } from "./turns.ts";

/** Time between two checks of which builds are over. Milliseconds. */
const TEND_MS = 1000;

const MAX_NOT_ASKING = 1000;

/** A store path that no store has: used to check whether upstream answers. */
const NO_SUCH_PATH = "00000000000000000000000000000000-x";

/** A derivation that asks for a sandbox, and what it gets. */
interface Asking {
  readonly derivation: Derivation;
  readonly answer: Exclude<OptIn, { readonly kind: "none" }>;
}

export class Linker {
  private readonly config: RootConfig;
  private readonly service: ServiceAccount;
  private readonly table: SandboxTable;
  private readonly upstream: DaemonQuery;
  /** Derivations that did not opt in, and why: the .drv of a build that keeps connecting must not be read each time. */
  private readonly notAsking = new Map<string, LinkError>();
  private readonly questions = new Questions();
  private linked = 0;
  private readonly hooks: Hooks;
  private readonly servers: Server[] = [];
  private watcher: FSWatcher | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(config: RootConfig, settle: Settle) {
    this.config = config;
    this.service = serviceAccount(config.serviceUser);
    this.table = new SandboxTable(config, this.service, settle);
    this.hooks = new Hooks(config, settle);
    this.upstream = new DaemonQuery(config.upstreamSocket, config.storeDir);
  }

  /** Registers the existing sandboxes, settles what was left behind, and listens. */
  async start(): Promise<void> {
    ensureTree(this.config, this.service);
    makeNoDaemonFolder(this.config);
    this.watch(sandboxesFolder(this.config));
    this.table.scan();
    void this.table.tend();
    this.timer = setInterval(() => {
      this.table.scan();
      void this.table.tend();
    }, TEND_MS);
    this.servers.push(
      await listenForHooks(hooksSocket(this.config), (name, pid) => this.hooks.answer(name, pid)),
      await listenForService(linkerSocket(this.config), this.service.gid, this.config.storeDir, (request) =>
        this.handle(request),
      ),
    );
  }

  /** Where the machine has no watches left, the next check finds what is new. */
  private watch(folder: string): void {
    const complain = (error: unknown): void => {
      process.stderr.write(
        `nix-broker linker: cannot watch ${folder}, new sandboxes are noticed a second later: ${errorText(error)}\n`,
      );
    };
    try {
      this.watcher = watch(folder, () => this.table.scan()).on("error", complain);
    } catch (error) {
      complain(error);
    }
  }

  stop(): void {
    clearInterval(this.timer);
    this.watcher?.close();
    for (const server of this.servers) server.close();
    this.table.close();
    this.upstream.close();
  }

  private async handle(request: LinkerRequest): Promise<Readonly<Record<string, unknown>>> {
    switch (request.op) {
      case "link":
        await this.link(request.sandbox, request.path);
        return {};
      case "status":
        return { ...(await this.status()) };
      case "identify":
        return {
          sandbox: await this.questions.ask(request.uid, () => this.identify(request.pid, request.uid)),
        };
      case "release":
        await this.table.release(request.sandbox);
        return {};
    }
  }

  private async link(id: SandboxId, path: StorePath): Promise<void> {
    const sandbox = this.table.find(id);
    if (!sandbox) throw new LinkError("unknown-sandbox", `there is no sandbox ${id}`);
    await sandbox.link(path, () => this.requireValid(path));
    this.linked++;
  }

  /** @throws LinkError */
  private async requireValid(path: StorePath): Promise<void> {
    let valid: boolean;
    try {
      valid = await this.upstream.isValidPath(path);
    } catch (error) {
      throw new LinkError("upstream", errorText(error));
    }
    if (!valid) throw new LinkError("invalid-path", `${path} is not valid in the machine's store`);
  }

  private async status(): Promise<LinkerStatus> {
    const upstream = await this.upstream.isValidPath(`${this.config.storeDir}/${NO_SUCH_PATH}`).then(
      () => "ok",
      (error: unknown) => errorText(error),
    );
    const sandboxes = this.table.all;
    return {
      version: 1,
      sandboxes: sandboxes.filter((sandbox) => sandbox.problem === undefined).length,
      queued: sandboxes.reduce((sum, sandbox) => sum + sandbox.waiting, 0),
      linked: this.linked,
      upstream,
      store: storeProblem(this.config.storeReal) ?? "ok",
    };
  }

  /**
   * The sandbox of the build that a process belongs to; created now if there is none, as the pre-build hook would.
   * @throws LinkError
   */
  private async identify(pid: number, uid: number): Promise<SandboxId> {
    const { storeReal, storeDir } = this.config;
    const { derivationBase, chroot } = await identifyBuild(pid, uid, storeReal, storeDir);
    const worker = daemonWorker(pid) ?? null;
    const known = this.table.inChroot(chroot, worker);
    if (known) return known.record.id;

    const refusal = this.notAsking.get(derivationBase);
    if (refusal) throw refusal;
    const asking = await this.asking(derivationBase, worker !== null);
    const registration = recordOf(this.config, `${storeDir}/${derivationBase}`, asking.derivation);
    // In user namespaces of their own, processes outside of sandboxes can mount any chroot of which they know the name.
    if (!hasCaller(pid, Object.values(registration.outputs)))
      throw new LinkError("not-a-build", `process ${pid} is not part of the build whose chroot it sees`);
    const record = {
      ...registration,
      ...(await judgement(this.config, asking.answer, worker ?? undefined)),
      origin: "static",
      chroot,
    } as const;
    await recordDurably(this.config, this.service, record);
    // A process of another user of the same build may have been faster.
    const made = this.table.inChroot(chroot, worker);
    if (made) {
      forgetRecord(this.config, record.id);
      return made.record.id;
    }
    registerSandbox(this.config, this.service, record);
    this.table.scan();
    return record.id;
  }

  /** @throws LinkError when the derivation does not ask for us; that is remembered. */
  private async asking(derivationBase: string, hasWorker: boolean): Promise<Asking> {
    const turns = new Turns();
    let reason: string;
    try {
      const derivation = await turns.during(() => readAskingDerivation(this.config, derivationBase, turns));
      const answer: OptIn = derivation ? optIn(derivation, { hasChroot: true, hasWorker }) : { kind: "none" };
      if (derivation && answer.kind !== "none") return { derivation, answer };
      reason = `add requiredSystemFeatures = [ "${SYSTEM_FEATURE}" ] to ${derivationBase}`;
    } catch (error) {
      if (!(error instanceof DerivationError)) throw error;
      reason = `its derivation cannot be read. ${error.message}`;
    }
    const refusal = new LinkError("not-opted-in", `this build does not ask for nix-broker: ${reason}`);
    if (this.notAsking.size >= MAX_NOT_ASKING) this.notAsking.clear();
    this.notAsking.set(derivationBase, refusal);
    throw refusal;
  }
}
