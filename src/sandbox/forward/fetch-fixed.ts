/**
 * Fixed outputs that nix-broker fetches itself, where the profile lists URL patterns. A fetcher downloads them, upstream
 * adds them, and the derivation is held when the walk looks again: none of the client's code had the network. Whatever a
 * fetcher says, what counts is the path that upstream makes of the contents.
 */

import { type FetchReply, LONGEST_LINE, parseReply } from "../../contract/fetch-job.ts";
import { refuseHash } from "../../policy/derivation-rules.ts";
import { expanded, type FetchPlan, fetchPlan, MOST_URLS, mirrorSites } from "../../policy/fetch-plan.ts";
import { matchesUrlPattern } from "../../policy/url-pattern.ts";
import { END_OF_FRAMES, FrameWriter } from "../../protocol/frames.ts";
import {
  type ContentAddress,
  printContentAddress,
  printContentAddressMethod,
} from "../../store/content-address.ts";
import { type Derivation, DerivationError } from "../../store/derivation.ts";
import { printHash } from "../../store/hash.ts";
import type { Pace } from "../../store/slices.ts";
import { type StorePath, storePathName } from "../../store/store-path.ts";
import type { Fetcher } from "../fetchers.ts";
import { Refusal, tooLong } from "../refusal.ts";
import type { Transport, UpstreamConnection } from "../upstream/connection.ts";
import { NEW_FORM_SINCE } from "./add.ts";
import { refused } from "./approve.ts";
import { buildTimeout } from "./build-timeouts.ts";
import { type BuildExchange, guarded, recordIntent, replyWithBody } from "./exchange.ts";
import { say } from "./say.ts";

/** A derivation with a fixed output that is not there. */
export interface Missing {
  readonly path: StorePath;
  readonly derivation: Derivation;
}

/** How many downloads of one request run at once. */
const AT_ONCE = 4;
/** How long a server may send next to nothing. Seconds. */
const PATIENCE = 60;

/** @throws Refusal naming the derivation, when one of them cannot be fetched */
export async function fetchFixed(
  exchange: BuildExchange,
  upstream: UpstreamConnection,
  missing: readonly Missing[],
): Promise<void> {
  const fetches: Fetch[] = [];
  for (const one of missing) fetches.push(await planned(exchange, one));
  if (fetches.length === 0) return;
  if (exchange.intent === undefined) recordIntent(exchange, exchange.subjects);
  const running = new Set<Fetcher>();
  const unwanted = new AbortController();
  const endAll = (): void => {
    unwanted.abort(new Error("the request has ended"));
    for (const fetcher of running) fetcher.end();
  };
  // The client's own connection: it is destroyed when the client leaves, or the time is up.
  upstream.onClose = endAll;
  let adding: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const turn = adding.then(work);
    adding = turn.catch(() => undefined);
    return turn;
  };
  try {
    await guarded(exchange, upstream, buildTimeout(exchange), async (deadline) => {
      const one = async (): Promise<void> => {
        for (let fetch = fetches.shift(); fetch; fetch = fetches.shift())
          await recorded(exchange, upstream, fetch, running, unwanted.signal, (fetched) =>
            inTurn(() => add(exchange, upstream, fetched)),
          ).catch((error: Error) => {
            // A fetcher that was ended has no reason of its own; the time that was up has.
            throw deadline.passed ? new Error("the time for the request is up") : error;
          });
      };
      await Promise.all(Array.from({ length: Math.min(AT_ONCE, fetches.length) }, one));
    });
  } finally {
    upstream.onClose = undefined;
    endAll();
  }
}

interface Fetch extends Missing {
  readonly plan: FetchPlan;
  /** Those of the URLs that may be fetched. */
  readonly urls: readonly string[];
}

interface Fetched extends Fetch {
  readonly from: Transport;
  readonly length: number;
}

/** @throws Refusal when nothing of it may be fetched */
async function planned(exchange: BuildExchange, { path, derivation }: Missing): Promise<Fetch> {
  const { profile } = exchange.sandbox;
  const patterns = Array.isArray(profile.fixedOutputs) ? profile.fixedOutputs : [];
  try {
    const weak = refuseHash(derivation, profile);
    if (weak !== undefined) throw refused(path, weak);
    const plan = fetchPlan(derivation);
    if (typeof plan === "string") throw refused(path, plan);
    const mirrors = await mirrorsOf(exchange, derivation, plan);
    const all = expanded(plan.urls, (site) => mirrors.get(site)?.trim().split(/\s+/, MOST_URLS) ?? []);
    const urls = all.filter((url) => patterns.some((pattern: string) => matchesUrlPattern(pattern, url)));
    if (urls.length === 0)
      throw refused(
        path,
        `the profile '${profile.name}' allows fetching none of its URLs (fixed_outputs): ${listed(all.length > 0 ? all : plan.urls)}`,
      );
    return { path, derivation, plan, urls };
  } catch (error) {
    throw error instanceof DerivationError ? refused(path, error.message) : error;
  }
}

const MOST_LISTED = 3;

function listed(urls: readonly string[]): string {
  const shown = urls.slice(0, MOST_LISTED).map((url) => url.slice(0, 300));
  return shown.join(", ") + (urls.length > MOST_LISTED ? ` and ${urls.length - MOST_LISTED} more` : "");
}

/** nixpkgs' list of mirrors is a derivation whose variables are the sites. It need not be built. */
async function mirrorsOf(
  { sandbox, store }: BuildExchange,
  derivation: Derivation,
  plan: FetchPlan,
): Promise<ReadonlyMap<string, string>> {
  const sites = mirrorSites(plan.urls);
  if (sites.size === 0 || plan.mirrorsFile === "") return new Map();
  for (const input of derivation.inputDrvs.keys()) {
    const candidate = await sandbox.view.derivation(input);
    if (candidate?.outputs.get("out")?.path === plan.mirrorsFile)
      return store.variables(input, sites, sandbox.quota);
  }
  return new Map();
}

/** Fetches one, and records how that ended. */
async function recorded(
  exchange: BuildExchange,
  upstream: UpstreamConnection,
  fetch: Fetch,
  running: Set<Fetcher>,
  unwanted: AbortSignal,
  use: (fetched: Fetched) => Promise<void>,
): Promise<void> {
  const { asker, recorder, intent, sandbox } = exchange;
  const started = performance.now();
  let urls = fetch.urls;
  let bytes = 0;
  let reason = "";
  let fetcher = await startFetcher(exchange, upstream, fetch, unwanted);
  running.add(fetcher);
  const end = (): void => {
    running.delete(fetcher);
    fetcher.end();
  };
  try {
    say(exchange, `fetching '${fetch.urls[0]}'...`);
    let reply = await readReply(fetcher, sandbox.pace);
    while (!reply) {
      end();
      say(exchange, `others wait, so '${fetch.urls[0]}' is fetched again when it is its turn...`);
      fetcher = await startFetcher(exchange, upstream, fetch, unwanted);
      running.add(fetcher);
      reply = await readReply(fetcher, sandbox.pace);
    }
    if (reply.asked.length > 0) urls = reply.asked;
    if (!reply.ok) throw failed(fetch, reply);
    bytes = reply.length;
    await use({ ...fetch, from: fetcher.transport, length: reply.length });
  } catch (error) {
    reason = (error as Error).message;
    throw error;
  } finally {
    end();
    sandbox.quota.countAuditRow(urls);
    const durationMs = Math.round(performance.now() - started);
    const { path: derivation, plan } = fetch;
    recorder.fetch({ asker, derivation, output: plan.output, urls, bytes, reason, durationMs, intent });
  }
}

async function startFetcher(
  exchange: BuildExchange,
  upstream: UpstreamConnection,
  { plan, urls }: Fetch,
  unwanted: AbortSignal,
): Promise<Fetcher> {
  const { fetchers, sandbox } = exchange;
  const { bodyBytes } = sandbox.profile.limits;
  const { hash, hashed, shapes } = plan;
  const job = {
    urls,
    patterns: sandbox.profile.fixedOutputs as readonly string[],
    privateHosts: fetchers.privateHosts,
    hash,
    hashed,
    shapes,
    sent: hashed === "flat" && takesFrames(upstream) ? "flat" : "nar",
    bytes: Math.min(bodyBytes, Number.MAX_SAFE_INTEGER),
    patience: PATIENCE,
  } as const;
  try {
    return await fetchers.start(job, sandbox.quota, unwanted);
  } catch (error) {
    if (unwanted.aborted) throw brokenFetcher(error as Error);
    throw new Refusal(
      "nix-broker cannot start the process that fetches for it; the reason is in its audit log, and the administrator can see it with 'nix-broker doctor'",
      { verdict: "forward", reason: `cannot start a fetcher: ${(error as Error).message}` },
    );
  }
}

/** Whether upstream has the newer form of AddToStore, in which a file need not be in a NAR. */
function takesFrames({ table }: UpstreamConnection): boolean {
  return table.minor >= NEW_FORM_SINCE;
}

/**
 * @returns undefined when it was ended for somebody else's
 * @throws Refusal when the fetcher breaks off, or makes no sense
 */
async function readReply({ transport, place }: Fetcher, pace: Pace): Promise<FetchReply | undefined> {
  try {
    for (;;) {
      const said = parseReply(await readLine(transport));
      if (!("progress" in said)) {
        place.settle();
        return said;
      }
      place.progress(said.progress);
      if (pace.due) await pace.pause();
    }
  } catch (error) {
    if (place.displaced) return undefined;
    throw brokenFetcher(error as Error);
  }
}

async function readLine(from: Transport): Promise<string> {
  for (;;) {
    const end = from.available.indexOf(0x0a);
    if (end !== -1) {
      const line = from.available.toString("utf8", 0, end);
      from.consume(end + 1);
      return line;
    }
    if (from.available.length > LONGEST_LINE || !(await from.fill(from.available.length + 1)))
      throw new Error("it broke off");
  }
}

function brokenFetcher(error: Error): Refusal {
  return new Refusal("the process that fetches for nix-broker ended early; try again", {
    verdict: "forward",
    reason: `a fetcher ended early: ${error.message}`,
  });
}

/** In Nix's words for a hash that is wrong: people look for them, and tools read them. */
function failed({ path, plan }: Fetch, { attempts, got }: FetchReply & { readonly ok: false }): Refusal {
  const reasons = attempts.map(({ url, reason }) => `${url}: ${reason}`).join("; ");
  const details = { verdict: "forward", reason: `it could not be fetched: ${reasons}` } as const;
  if (got === undefined || got.length !== plan.hash.digest.length || !plan.certain)
    return new Refusal(
      `derivation '${path}' could not be fetched: ${reasons}${
        plan.certain
          ? ""
          : ". Its postFetch may change what was downloaded; nix-broker runs no code of a derivation's with network access"
      }`,
      details,
    );
  const { hash: wanted } = addressOf(plan);
  const hash = { algorithm: wanted.algorithm, digest: Buffer.from(got, "hex") };
  return new Refusal(
    `hash mismatch in fixed-output derivation '${path}':\n  specified: ${printHash(wanted, "sri", true)}\n     got:    ${printHash(hash, "sri", true)}`,
    details,
  );
}

/** What the derivation names its output by. */
function addressOf({ hash: { algorithm, digest }, hashed }: FetchPlan): ContentAddress {
  return { method: hashed, hash: { algorithm, digest: Buffer.from(digest, "hex") } };
}

/** @throws Refusal */
async function add(
  exchange: BuildExchange,
  upstream: UpstreamConnection,
  { plan, from, length, path }: Fetched,
): Promise<void> {
  const { sandbox } = exchange;
  if (length > sandbox.profile.limits.bodyBytes) throw tooLong("bodyBytes", sandbox.profile.limits.bodyBytes);
  sandbox.quota.addBytes(length);
  const address = addressOf(plan);
  const by = { method: address.method, algorithm: address.hash.algorithm };
  const name = storePathName(plan.output);
  const framed = takesFrames(upstream);
  const reply = await replyWithBody(exchange, upstream, "AddToStore", async (deadline, stopped) => {
    void upstream.send(
      "AddToStore",
      framed
        ? { name, method: printContentAddressMethod(by), references: [], repair: false }
        : { name, fixed: true, recursive: by.method === "nar", hashAlgorithm: by.algorithm },
    );
    const frames = new FrameWriter();
    await passOn(from, length, async (piece) => {
      deadline.alive();
      for (const bytes of framed ? frames.frames(piece) : [piece])
        if (!stopped()) await upstream.write(bytes);
    });
    if (framed) await upstream.write(END_OF_FRAMES);
  });
  const { path: added } = reply;
  if (added !== plan.output)
    throw refused(path, "what was fetched does not have the hash that the derivation names");
  await sandbox.admit([added], (info) => (info.path === added ? printContentAddress(address) : ""));
}

/** @throws Refusal when less comes than was announced */
async function passOn(
  from: Transport,
  length: number,
  write: (piece: Buffer) => Promise<void>,
): Promise<void> {
  for (let left = length; left > 0; ) {
    if (from.available.length === 0) {
      const more = await from.fill().catch((error: Error) => {
        throw brokenFetcher(error);
      });
      if (!more) throw brokenFetcher(new Error("it broke off"));
    }
    const piece = from.available.subarray(0, left);
    await write(piece);
    left -= piece.length;
    from.consume(piece.length);
  }
}
