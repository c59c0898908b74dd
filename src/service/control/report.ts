/** Makes the answers of the control channel from the running service. */
import packageJson from "../../../package.json" with { type: "json" };
import type { AuditStore } from "../../audit/store.ts";
import type { Sandbox } from "../../sandbox/sandbox.ts";
import type { Broker } from "../broker.ts";
import type { LinkerClient } from "../builds/linker-client.ts";
import type { BuildSandboxes } from "../builds/sandboxes.ts";
import type { Health } from "../health.ts";
import type { StaticSockets } from "../listeners.ts";
import { linkerReport, upstreamError } from "../reach.ts";
import { upstreamName } from "../upstream.ts";
import type { ControlHandlers } from "./control.ts";
import type { PathList, SandboxDetails, SandboxSummary, StatusReport } from "./messages.ts";
import type { ControlTally } from "./tally.ts";

export interface ReportSources {
  readonly broker: Broker;
  readonly builds: BuildSandboxes;
  readonly linker: LinkerClient;
  readonly sockets: StaticSockets;
  readonly health: Health;
  readonly audit: AuditStore;
  readonly tally: ControlTally;
}

/** Longer lists are cut; their total length is given. */
const MOST_PATHS = 5000;
const MOST_SANDBOXES = 5000;
/** How many characters of an id are enough to look for it. */
const LEAST_ID = 4;

/** What answers each request of the control channel. */
export function controlHandlers(sources: ReportSources): ControlHandlers {
  const startedAt = new Date();
  return {
    status: () => status(sources, startedAt),
    sandboxes: () => sandboxSummaries(sources),
    sandbox: (asks) => details(sources, textIn(asks, "id")),
    endJail: async (asks) => {
      await sources.sockets.endJail(textIn(asks, "name"));
      return {};
    },
  };
}

/** The open sandboxes, oldest first, as many as fit into a message. */
export function sandboxSummaries({
  broker,
  builds,
}: Pick<ReportSources, "broker" | "builds">): SandboxSummary[] {
  const connections = broker.connectionsBySandbox;
  return [...broker.openSandboxes]
    .slice(0, MOST_SANDBOXES)
    .map((sandbox) => summary(sandbox, connections.get(sandbox) ?? 0, builds));
}

async function status(sources: ReportSources, startedAt: Date): Promise<StatusReport> {
  const { broker, sockets, health, audit, tally } = sources;
  const { config } = broker;
  const sandboxes = [...broker.openSandboxes];
  const statics = sandboxes.filter(({ derivation }) => derivation === undefined).length;
  const [error, linker] = await Promise.all([upstreamError(broker), linkerReport(config, sources.linker)]);
  const { facts } = broker.pool;
  return {
    service: {
      version: packageJson.version,
      pid: process.pid,
      uid: process.getuid?.() ?? -1,
      startedAt: startedAt.toISOString(),
      uptimeSeconds: Math.floor((Date.now() - startedAt.getTime()) / 1000),
      configFile: config.file ?? null,
      reloadError: health.reload,
    },
    upstream: {
      at: upstreamName(config.upstream),
      error,
      protocol: facts ? `1.${facts.minor}` : null,
      nixVersion: facts?.nixVersion ?? null,
    },
    pool: { idle: broker.pool.idle, size: config.upstream.pool },
    sandboxes: { builds: sandboxes.length - statics, static: statics },
    sockets: sockets.states,
    connections: broker.openConnections,
    memory: { held: broker.memory.held, size: broker.memory.size, waiting: broker.memory.waiting },
    requests: { ...tally.requests },
    innerBuilds: { running: broker.buildsRunning, ...tally.builds },
    audit: {
      folder: audit.folder,
      error: audit.failure?.message ?? null,
      records: audit.head.seq,
      pending: audit.pending,
      lagSeconds: audit.lagMs / 1000,
      lost: audit.lost,
    },
    linker,
    limitsHit: { ...tally.limitsHit },
  };
}

function summary(sandbox: Sandbox, connections: number, ofBuilds: BuildSandboxes): SandboxSummary {
  const { quota } = sandbox;
  const { concurrentBuilds, builds, bytesAdded } = sandbox.profile.limits;
  return {
    id: sandbox.id,
    derivation: sandbox.derivation ?? null,
    socket: sandbox.socket ?? null,
    jail: sandbox.jail?.name ?? null,
    profile: sandbox.profile.name,
    parent: sandbox.parent?.id ?? null,
    depth: sandbox.depth,
    uid: ofBuilds.uidOf(sandbox) ?? null,
    connections,
    builds: { running: quota.buildsRunning, total: quota.builds },
    viewPaths: sandbox.view.size,
    bytesAdded: quota.bytesAdded,
    since: sandbox.since.toISOString(),
    endsAt: sandbox.jail?.endsAt?.toISOString() ?? null,
    limits: {
      concurrentBuilds: finite(concurrentBuilds),
      builds: finite(builds),
      bytesAdded: finite(bytesAdded),
    },
    refused: sandbox.ended ?? null,
  };
}

/** @throws Error when it is not an id, or the beginning of no id or of several */
async function details({ broker, builds, tally }: ReportSources, id: string): Promise<SandboxDetails> {
  const open = [...broker.openSandboxes];
  const found = open.filter((sandbox) => id.length >= LEAST_ID && sandbox.id.startsWith(id));
  // A reload leaves some to their clients: the newest gets the next ones.
  const jail = open.findLast((sandbox) => sandbox.jail?.name === id);
  const sandbox = jail ?? found[0];
  if (!sandbox)
    throw new Error(
      id.length < LEAST_ID
        ? `no jail is named "${id}"; of a sandbox's id, give at least the first ${LEAST_ID} characters`
        : `no running sandbox has an id that begins with "${id}", and no jail is named so`,
    );
  if (!jail && found.length > 1)
    throw new Error(
      `${found.length} running sandboxes have ids that begin with "${id}": give more characters`,
    );
  const gained = new Set(sandbox.gained);
  const viewStart = sandbox.view.closed
    ? pathList((await sandbox.view.all()).filter((path) => !gained.has(path)))
    : null;
  return {
    ...summary(sandbox, broker.connectionsBySandbox.get(sandbox) ?? 0, builds),
    viewStart,
    gained: pathList([...gained].sort()),
    innerBuilds: tally.buildsOf(sandbox),
  };
}

function pathList(paths: readonly string[]): PathList {
  return { total: paths.length, paths: paths.slice(0, MOST_PATHS) };
}

/** In JSON there is no infinity. */
function finite(limit: number): number | null {
  return Number.isFinite(limit) ? limit : null;
}

/** @throws Error when the request names none */
function textIn(asks: unknown, key: "id" | "name"): string {
  const text: unknown = new Map(Object.entries(asks ?? {})).get(key);
  if (typeof text !== "string" || !/^[a-z0-9.-]{1,65}$/.test(text))
    throw new Error("a sandbox's id, or a jail's name, has lower-case letters, digits, dots and dashes");
  return text;
}
