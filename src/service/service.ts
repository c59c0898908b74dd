/** Starts and stops the service: everything that `nix-broker serve` runs. */
import { createHash } from "node:crypto";
import packageJson from "../../package.json" with { type: "json" };
import { serviceRecord } from "../audit/events.ts";
import { logRecords } from "../audit/json-line.ts";
import { AuditStore } from "../audit/store.ts";
import { nowMicroseconds } from "../audit/time.ts";
import type { Config } from "../config/config.ts";
import { inOneLine } from "../config/config-error.ts";
import { type ActivatedSocket, takeActivatedSockets } from "../host/activation.ts";
import type { FileLock } from "../host/file-lock.ts";
import { Notifier } from "../host/notify.ts";
import { AuditKeeper } from "./audit-keeper.ts";
import { lockAudit } from "./audit-lock.ts";
import { AuditRecorder } from "./audit-recorder.ts";
import { Broker } from "./broker.ts";
import { LinkerClient } from "./builds/linker-client.ts";
import { BuildSandboxes } from "./builds/sandboxes.ts";
import { BuildUsers } from "./builds/users.ts";
import { ControlAccess } from "./control/access.ts";
import { serveControl } from "./control/control.ts";
import { controlHandlers, type ReportSources, sandboxSummaries } from "./control/report.ts";
import { ControlTally } from "./control/tally.ts";
import { noCounters } from "./counters.ts";
import { Health } from "./health.ts";
import { keepHeapSmall } from "./heap.ts";
import { StaticSockets } from "./listeners.ts";
import { type Log, makeLog } from "./log.ts";
import type { MetricSources, Metrics } from "./metrics.ts";
import { tellRejections } from "./own-faults.ts";
import { refuseRoot } from "./refuse-root.ts";
import { OneAtATime, takenUp } from "./reload.ts";
import type { WebFeed } from "./web/feed.ts";
import { metricsRoute, openSites } from "./web/sites.ts";

export interface Service {
  /** Finishes what is in flight, within the configured grace, and ends. */
  stop(): Promise<void>;
  /** Reads the configuration again, and takes up its sockets and profiles. What is wrong with it is told, and changes nothing. */
  reload(): Promise<void>;
}

export interface ServiceOptions {
  /** Reads the configuration again. @throws ConfigError */
  readonly read?: () => Promise<Config>;
  /** The path of the static socket without which there is no point in serving. */
  readonly required?: string | undefined;
}

/** Something that listens. */
interface Door {
  close(): void | Promise<void>;
}

/**
 * @throws ServiceError, ListenError, AuditError, ControlError, HttpError, TokenError, ConfigError: with advice. What was
 * opened until then is closed.
 */
export async function startService(config: Config, options: ServiceOptions = {}): Promise<Service> {
  refuseRoot(config);
  keepHeapSmall();
  const log = makeLog(config.log.level);
  const activated = takeActivatedSockets();
  const notifier = Notifier.fromEnvironment();
  const lock = await lockAudit(config.audit.path, config.runtime.stopGrace, log);
  const ignoreRejections = tellRejections(log);
  const release = (): void => {
    ignoreRejections();
    lock.release();
  };
  try {
    return await startLocked(config, { lock, release, log, activated, notifier, options });
  } catch (error) {
    release();
    throw error;
  }
}

interface Surroundings {
  /** Ours until the service has stopped. */
  readonly lock: FileLock;
  readonly release: () => void;
  readonly log: Log;
  readonly activated: readonly ActivatedSocket[];
  readonly notifier: Notifier | undefined;
  readonly options: ServiceOptions;
}

async function startLocked(
  config: Config,
  { lock, release, log, activated, notifier, options }: Surroundings,
): Promise<Service> {
  // Whatever the level of the log: whoever wants the records in it wants all of them.
  const recordLog = log.child({}, { level: "info" });
  let keeper: AuditKeeper | undefined;
  let feed: WebFeed | undefined;
  const audit = new AuditStore(config.audit.path, {
    onHealth(failure) {
      if (failure)
        log.error(
          { error: failure.message },
          "the audit cannot be written: requests are refused until it can",
        );
      else log.info("the audit is written again");
    },
    onWritten(records) {
      if (config.audit.jsonLines) logRecords(recordLog, records);
      keeper?.written(records);
      feed?.push(records);
    },
  });
  const users = new BuildUsers(config.hooks);
  const metrics = await metricsIfServed(config, {
    sandboxes: () => sandboxesByProfile(broker),
    connections: () => broker.openConnections,
    pooledUpstreams: () => broker.pool.idle,
    innerBuilds: () => broker.buildsRunning,
    linkerRequests: () => linker.waiting,
    memory: () => broker.memory,
    audit: () => audit,
  });
  const tally = new ControlTally(metrics ?? noCounters);
  const recorder = new AuditRecorder(audit, tally, (build) => tally.buildEnded(build));
  const broker = new Broker(config, recorder, tally, users.count);
  const linker = new LinkerClient(`${config.runtime.dir}/linker.sock`);
  const builds = new BuildSandboxes(config, broker, linker, users, log);
  const sockets = new StaticSockets(config, { broker, builds, linker, log });
  const health = new Health({ broker, linker, sockets, log, notifier });
  const sources: ReportSources = { broker, builds, linker, sockets, health, audit, tally };
  const doors: Door[] = [];
  const recordConfiguration = (event: "start" | "reload"): void =>
    audit.append(
      serviceRecord(event, nowMicroseconds(), {
        version: packageJson.version,
        configuration: configurationHash(broker.config),
      }),
    );
  try {
    feed = await feedIfServed(config, { ...sources, log });
    doors.push(await openControl(config, sources, log));
    if (metrics) doors.push(...(await openSites(config, { metrics, log })));
    if (feed && metrics) doors.push(await openPage(config, feed, metrics, log));
    await builds.start();
    await sockets.start(config.listen, activated);
    const failure = options.required === undefined ? undefined : sockets.failureAt(options.required);
    if (failure) throw failure;
  } catch (error) {
    await sockets.close();
    await builds.drain();
    await broker.stop(0);
    await builds.stop();
    linker.close();
    await closeAll(doors);
    feed?.close();
    audit.close();
    throw error;
  }
  recordConfiguration("start");
  keeper = new AuditKeeper(audit, config.audit, log);
  const watchdog = notifier?.watchdogMs && setInterval(() => notifier.watchdog(), notifier.watchdogMs / 2);
  // Upstream may start later; until then clients are told.
  await health.start();
  notifier?.ready(health.line);

  const reload = new OneAtATime(async () => {
    notifier?.reloading();
    try {
      const { config: fresh, later } = takenUp(broker.config, (await options.read?.()) ?? broker.config);
      broker.takeUp(fresh);
      log.level = fresh.log.level;
      await sockets.reload(fresh.listen);
      health.reload = null;
      recordConfiguration("reload");
      log.info({ configuration: fresh.file }, "the configuration was taken up");
      if (later.length > 0)
        log.warn({ tables: later }, "changes in these tables of the configuration need a restart");
    } catch (error) {
      health.reload = inOneLine((error as Error).message);
      log.error(
        { error: health.reload },
        "the configuration was not taken up: the one before stays in force",
      );
    }
    notifier?.ready(health.line);
  });
  return {
    reload: () => reload.run(),
    async stop() {
      notifier?.stopping();
      health.stop();
      clearInterval(watchdog || undefined);
      await inSteps(log, [
        () => lock.announceStop(),
        () => sockets.close(),
        () => builds.drain(),
        // What is in flight still needs the linker, and people may look at what it waits for.
        () => broker.stop(config.runtime.stopGrace),
        () => builds.stop(),
        () => linker.close(),
        () => audit.append(serviceRecord("stop", nowMicroseconds(), {})),
        () => keeper.stop(),
        () => audit.close(),
        () => closeAll(doors),
        () => feed?.close(),
        release,
      ]);
      log.info("stopped");
    },
  };
}

/** Each regardless of the others: a full disk, or a folder that is gone, must not cut off what is in flight. */
async function inSteps(log: Log, steps: readonly (() => unknown)[]): Promise<void> {
  for (const step of steps)
    try {
      await step();
    } catch (error) {
      log.error({ error: (error as Error).message }, "the service does not stop as it should");
    }
}

async function closeAll(doors: readonly Door[]): Promise<void> {
  await Promise.all(doors.map((door) => door.close()));
}

function openControl({ runtime }: Config, sources: ReportSources, log: Log): Promise<Door> {
  const access = new ControlAccess(runtime.adminGroup);
  return serveControl({
    folder: runtime.controlDir,
    group: access.groupId,
    refusal: (socket) => access.refusal(socket),
    handlers: controlHandlers(sources),
    onProblem: (error) => log.warn({ error: error.message }, "a fault on the control channel"),
  });
}

/** If nobody can scrape them, there is no point in collecting them, or in loading the code for it. */
async function metricsIfServed(config: Config, sources: MetricSources): Promise<Metrics | undefined> {
  if (!config.metrics.listen && !config.web.listen) return undefined;
  const { Metrics } = await import("./metrics.ts");
  return new Metrics(sources, packageJson.version);
}

/** The live page keeps the latest records in memory: only if it is enabled. */
async function feedIfServed(
  config: Config,
  { audit, broker, builds, linker, tally, log }: ReportSources & { readonly log: Log },
): Promise<WebFeed | undefined> {
  if (!config.web.listen) return undefined;
  const { WebFeed } = await import("./web/feed.ts");
  return new WebFeed({
    folder: audit.folder,
    version: packageJson.version,
    log,
    head: () => audit.head.seq,
    sandboxes: () => sandboxSummaries({ broker, builds }),
    state: () => ({
      time: Date.now(),
      requests: { ...tally.requests },
      builds: { running: broker.buildsRunning, ...tally.builds },
      connections: broker.openConnections,
      pool: broker.pool.idle,
      linker: linker.waiting,
      audit: { head: audit.head.seq, lagMs: audit.lagMs, error: audit.failure?.message ?? null },
    }),
  });
}

/** The page, and the metrics beside it behind the same token. */
async function openPage(config: Config, feed: WebFeed, metrics: Metrics, log: Log): Promise<Door> {
  const { openWeb } = await import("./web/web.ts");
  return openWeb(config, feed, { log }, new Map([["/metrics", metricsRoute(metrics)]]));
}

function sandboxesByProfile(broker: Broker): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { profile } of broker.openSandboxes)
    counts.set(profile.name, (counts.get(profile.name) ?? 0) + 1);
  return counts;
}

/** For auditors: shows whether the service ran with a different configuration than before. */
function configurationHash(config: Config): string {
  const text = JSON.stringify(config, (_, value: unknown) => (value instanceof Map ? [...value] : value));
  return createHash("sha256").update(text).digest("hex");
}
