/** How the service is, for the service manager's status line and the log: looked at when it starts, and from then on. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Notifier } from "../host/notify.ts";
import type { Broker } from "./broker.ts";
import type { LinkerClient } from "./builds/linker-client.ts";
import type { StaticSockets } from "./listeners.ts";
import type { Log } from "./log.ts";
import { linkerReport, upstreamError } from "./reach.ts";
import { upstreamName } from "./upstream.ts";

export interface HealthSources {
  readonly broker: Broker;
  readonly linker: LinkerClient;
  readonly sockets: StaticSockets;
  readonly log: Log;
  readonly notifier: Notifier | undefined;
}

/** What a status line says. */
export interface HealthFacts {
  /** Why upstream cannot be used; null while it can. */
  readonly upstream: string | null;
  readonly nixVersion: string | undefined;
  /** Why the linker cannot be used; undefined where nothing needs it. */
  readonly linker: string | null | undefined;
  readonly builds: number;
  readonly sockets: readonly { readonly path: string; readonly error: string | null }[];
  /** Why the configuration was not taken up at the last reload; null if it was. */
  readonly reload: string | null;
}

const LOOK_MS = 2000;
/** The daemon logs each connection: no more of them than it takes to notice that it has gone. */
const UPSTREAM_MS = 30_000;
const RETRY_MS = 5000;
const LINKER_MS = 10_000;
/** How long readiness waits for the first look; clients are served meanwhile. */
const FIRST_LOOK_MS = 3000;

/** One line: what is not as it should be comes first. */
export function statusLine(facts: HealthFacts): string {
  const { upstream, nixVersion, linker, builds, sockets, reload } = facts;
  const shut = sockets.filter(({ error }) => error !== null);
  const wrong = [
    ...(upstream === null ? [] : [`upstream NOT reached: ${upstream}`]),
    ...(typeof linker === "string" ? [`linker NOT reached: ${linker}`] : []),
    ...shut.map(({ path, error }) => `${path} NOT open: ${error}`),
    ...(reload === null ? [] : [`configuration NOT taken up: ${reload}`]),
  ];
  const well = [
    ...(upstream === null
      ? [`upstream reached${nixVersion === undefined ? "" : ` (Nix ${nixVersion})`}`]
      : []),
    ...(linker === null ? ["linker reached"] : []),
    `${counted(builds, "sandbox", "sandboxes")} of builds, ${counted(sockets.length - shut.length, "static socket", "static sockets")}`,
  ];
  return [...wrong, ...well].join("; ");
}

function counted(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}

export class Health {
  /** Why the configuration was not taken up at the last reload. */
  reload: string | null = null;
  private readonly sources: HealthSources;
  private upstream: string | null | undefined;
  private linker: string | null | undefined;
  private upstreamDue = 0;
  private linkerDue = 0;
  private looking = false;
  private timer: NodeJS.Timeout | undefined;
  private told = "";

  constructor(sources: HealthSources) {
    this.sources = sources;
  }

  /** Resolves after the first look, or if it takes long before that. */
  async start(): Promise<void> {
    this.timer = setInterval(() => void this.look(), LOOK_MS);
    const over = new AbortController();
    await Promise.race([
      this.look(),
      sleep(FIRST_LOOK_MS, undefined, { signal: over.signal, ref: false }).catch(() => undefined),
    ]);
    over.abort();
  }

  stop(): void {
    clearInterval(this.timer);
  }

  get line(): string {
    const { broker, sockets } = this.sources;
    const builds = [...broker.openSandboxes].filter(({ derivation }) => derivation !== undefined).length;
    return statusLine({
      upstream: this.upstream === undefined ? "it has not answered yet" : this.upstream,
      nixVersion: broker.pool.facts?.nixVersion,
      linker: this.linker,
      builds,
      sockets: sockets.states,
      reload: this.reload,
    });
  }

  /** Tells the service manager if something has changed. */
  tell(): void {
    const { line } = this;
    if (line === this.told) return;
    this.told = line;
    this.sources.notifier?.status(line);
  }

  private async look(): Promise<void> {
    // A look may take longer than the time between two.
    if (this.looking) return;
    this.looking = true;
    try {
      await Promise.all([this.lookAtUpstream(), this.lookAtLinker()]);
      this.tell();
    } catch (error) {
      // Whoever looks must not be what ends the service.
      this.sources.log.error({ error: (error as Error).message }, "the status cannot be found out");
    } finally {
      this.looking = false;
    }
  }

  private async lookAtUpstream(): Promise<void> {
    const { broker, log } = this.sources;
    // Its facts are forgotten when it is restarted, or hangs up.
    if (Date.now() < this.upstreamDue && (this.upstream !== null || broker.pool.facts)) return;
    const before = this.upstream;
    this.upstream = await upstreamError(broker);
    this.upstreamDue = Date.now() + (this.upstream === null ? UPSTREAM_MS : RETRY_MS);
    const upstream = upstreamName(broker.config.upstream);
    if (this.upstream !== null) {
      const message = before === null ? "upstream cannot be used any more" : "upstream cannot be used yet";
      if (this.upstream !== before) log.error({ upstream, error: this.upstream }, message);
    } else if (before !== null) {
      const { minor, nixVersion } = broker.pool.facts ?? {};
      log.info({ upstream, protocol: `1.${minor}`, nixVersion }, "upstream reached");
    }
  }

  private async lookAtLinker(): Promise<void> {
    if (Date.now() < this.linkerDue) return;
    const { broker, linker, log } = this.sources;
    const before = this.linker;
    const { error, needed } = await linkerReport(broker.config, linker);
    this.linker = needed ? error : undefined;
    this.linkerDue = Date.now() + (typeof this.linker === "string" ? RETRY_MS : LINKER_MS);
    if (typeof this.linker === "string" && this.linker !== before)
      log.error({ error: this.linker }, "the linker cannot be used: builds that opt in are refused");
    else if (this.linker === null && before !== null) log.info("linker reached");
  }
}
