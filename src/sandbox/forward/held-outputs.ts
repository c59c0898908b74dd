/**
 * Which outputs a build request need not build, because they exist and cannot vanish while it runs. What a
 * request may run depends on these answers alone (docs/approval.md): a daemon builds a derivation only if a
 * wanted output is not valid.
 */
import { printDerivedPath } from "../../policy/derived-path.ts";
import { amongView, infoInView } from "../../policy/view-queries.ts";
import type { ReplyOf, RequestOf } from "../../protocol/operations.ts";
import type { StorePath } from "../../store/store-path.ts";
import { type UpstreamConnection, UpstreamRefusal } from "../upstream/connection.ts";
import type { WantedOutputs } from "./approve.ts";
import { buildTimeout } from "./build-timeouts.ts";
import { type BuildExchange, type Exchange, guarded, recordIntent } from "./exchange.ts";
import { fetchFixed, type Missing } from "./fetch-fixed.ts";

/** Operations with which a client can have a path fetched. */
export type SubstitutingExchange = Exchange<"BuildPaths" | "BuildPathsWithResults" | "EnsurePath">;

export interface HeldOutputs {
  /** Those of the paths that are held. */
  among(paths: readonly StorePath[]): Promise<ReadonlySet<StorePath>>;
  /** Keeps derivations until the request is over, and all that they refer to. @returns those that are there */
  keep(derivations: readonly StorePath[]): Promise<ReadonlySet<StorePath>>;
  /** Makes upstream fetch those of the paths that it can. @returns whether it tried any */
  fetch(paths: readonly StorePath[]): Promise<boolean>;
  /** Fetches the outputs of these derivations, if the profile has nix-broker do that. @throws Refusal when it cannot */
  download(missing: readonly Missing[]): Promise<void>;
  /** What may run reads these paths, besides outputs that are held. */
  readToo(sources: Iterable<StorePath>): void;
  /**
   * Waits until nothing that is held or read, nor anything in the closures of these paths, can gain references any more:
   * what is built upon it before lacks them for good (G6).
   * @throws Refusal when that takes too long
   */
  settled(): Promise<void>;
}

/**
 * A closed view holds what is in it: that is rooted as long as the sandbox lives, and complete. Upstream is
 * never asked: otherwise a refusal would reveal what the host has (G1).
 */
export function heldInView(exchange: BuildExchange): HeldOutputs {
  const { view, pace } = exchange.sandbox;
  return {
    among: (paths) => amongView(view, paths, pace),
    keep: (derivations) => amongView(view, derivations, pace),
    fetch: async () => false,
    download: async (missing) => {
      if (missing.length > 0) await fetchFixed(exchange, await exchange.upstream(), missing);
    },
    // What is in the view is complete: that was waited for before it entered.
    readToo() {},
    settled: async () => {},
  };
}

/** How many paths are asked about at once: such a question is encoded at once. */
const ASKED_AT_ONCE = 4096;
/** Of the temporary roots of a connection so many are remembered. */
const MOST_ROOTED = 50_000;

/** The temporary roots of connections, which upstream keeps while they are open. */
const rooted = new WeakMap<UpstreamConnection, Set<StorePath>>();

async function root(upstream: UpstreamConnection, paths: readonly StorePath[]): Promise<void> {
  const known = rooted.get(upstream) ?? new Set();
  rooted.set(upstream, known);
  const fresh = paths.filter((path) => !known.has(path));
  await upstream.askEach(
    "AddTempRoot",
    fresh.map((path) => ({ path })),
  );
  for (const path of fresh) if (known.size < MOST_ROOTED) known.add(path);
}

/**
 * If the view is the whole store: what is valid and has a temporary root on the connection that carries the
 * build. The root comes first, or a garbage collection could happen in between.
 * @param targets what the request asks for
 */
export function heldOnConnection(
  exchange: BuildExchange,
  upstream: UpstreamConnection,
  targets: readonly WantedOutputs[],
): HeldOutputs {
  const ask = <T>(work: () => Promise<T>): Promise<T> => guarded(exchange, upstream, "requestDeadline", work);
  /** What upstream says that it would fetch: only a hint of what to try. A cache may lie, or be gone. */
  let hinted: ReadonlySet<StorePath> | undefined;
  /** What is held, and what is read besides. */
  const readPaths = new Set<StorePath>();
  async function keep(paths: readonly StorePath[]): Promise<Set<StorePath>> {
    await root(upstream, paths);
    const valid = new Set<StorePath>();
    for (let i = 0; i < paths.length; i += ASKED_AT_ONCE) {
      const asked = paths.slice(i, i + ASKED_AT_ONCE);
      for (const path of await upstream.ask("QueryValidPaths", { paths: asked, substitute: 0 }))
        valid.add(path);
    }
    return valid;
  }

  async function fetchable(paths: readonly StorePath[]): Promise<StorePath[]> {
    const printed = targets.map((target) =>
      printDerivedPath({ kind: "outputs", ...target }, upstream.table.minor),
    );
    hinted ??= new Set((await ask(() => upstream.ask("QueryMissing", { paths: printed }))).willSubstitute);
    return paths.filter((path) => hinted?.has(path));
  }

  return {
    among: (paths) =>
      ask(async () => {
        const valid = await keep(paths);
        for (const path of valid) readPaths.add(path);
        return valid;
      }),
    keep: (derivations) => ask(() => keep(derivations)),
    fetch: async (paths) => {
      if (!exchange.sandbox.profile.substitute || paths.length === 0) return false;
      const hopeful = await fetchable(paths);
      // One request each: in a common request, one damaged archive would prevent the good ones from being
      // fetched (2.3, 2.8).
      for (const path of hopeful) await fetchPath(exchange, upstream, path);
      return hopeful.length > 0;
    },
    download: (missing) => fetchFixed(exchange, upstream, missing),
    readToo(sources) {
      for (const path of sources) readPaths.add(path);
    },
    settled: async () => {
      const { waits } = exchange;
      for (let held = waits.heldPaths(); held.length > 0; held = waits.heldPaths()) {
        const touching = await ask(() => touchedBy(upstream, held, readPaths));
        if (!(await waits.released(touching))) return;
      }
    },
  };
}

/**
 * Makes upstream fetch a path. Either it is fetched, or that fails. By EnsurePath, not BuildPaths: there a bare path that
 * ends in `.drv` means its outputs to daemons of Nix 2.3, which fetch the derivation and build it.
 */
async function fetchPath(
  exchange: SubstitutingExchange,
  upstream: UpstreamConnection,
  path: StorePath,
): Promise<void> {
  if (exchange.intent === undefined) recordIntent(exchange, exchange.subjects);
  exchange.detail.fetched = [...(exchange.detail.fetched ?? []), path];
  await guarded(exchange, upstream, buildTimeout(exchange), async () => {
    try {
      await upstream.ask("EnsurePath", { path });
    } catch (error) {
      if (!(error instanceof UpstreamRefusal)) throw error;
    }
  });
}

export async function ensurePath(
  exchange: Exchange<"EnsurePath">,
  { path }: RequestOf<"EnsurePath">,
): Promise<ReplyOf<"EnsurePath">> {
  await requirePath(exchange, path);
  return 1;
}

/** If the view is the whole store, a path that does not exist may be fetched. @throws NotInView */
export async function requirePath(exchange: SubstitutingExchange, path: StorePath): Promise<void> {
  const { view, profile } = exchange.sandbox;
  if (!view.closed && profile.substitute && !(await view.info(path)))
    await fetchPath(exchange, await exchange.upstream(), path);
  await infoInView(path, view);
}

/** Those of the held paths that are among the other paths, or that those refer to, directly or indirectly. */
async function touchedBy(
  upstream: UpstreamConnection,
  held: readonly StorePath[],
  paths: ReadonlySet<StorePath>,
): Promise<StorePath[]> {
  const touching: StorePath[] = [];
  for (const path of held) {
    const visited = new Set<StorePath>();
    for (const pending = [path]; pending.length > 0; ) {
      const next = pending.pop()!;
      if (visited.has(next)) continue;
      visited.add(next);
      if (paths.has(next)) {
        touching.push(path);
        break;
      }
      pending.push(...(await upstream.ask("QueryReferrers", { path: next })));
    }
  }
  return touching;
}
