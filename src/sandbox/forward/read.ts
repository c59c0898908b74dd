/** Operations that read: contents of a path, and what a content-addressed derivation resolved to. */
import { infoInView } from "../../policy/view-queries.ts";
import { STDERR } from "../../protocol/log-messages.ts";
import type { ReplyOf, RequestOf } from "../../protocol/operations.ts";
import { Encoder } from "../../protocol/wire.ts";
import { NarWalker } from "../../store/nar-walker.ts";
import { isStorePath, type StorePath } from "../../store/store-path.ts";
import type { Deadline } from "../deadline.ts";
import { Refusal } from "../refusal.ts";
import type { UpstreamConnection } from "../upstream/connection.ts";
import type { View } from "../view.ts";
import { type Exchange, guarded, REPLIED, refusedByUpstream } from "./exchange.ts";

export async function narFromPath(
  exchange: Exchange,
  request: RequestOf<"NarFromPath">,
): Promise<typeof REPLIED> {
  await infoInView(request.path, exchange.sandbox.view);
  const upstream = await exchange.upstream();
  await guarded(exchange, upstream, "requestDeadline", async (deadline) => {
    void upstream.send("NarFromPath", request);
    const refused = await upstream.outcome({});
    if (refused !== undefined) throw refusedByUpstream(exchange, refused);
    await upstream.reply("NarFromPath");
    exchange.replying = true;
    await passNar(exchange, upstream, deadline);
  });
  return REPLIED;
}

/** Passes on the NAR after "last". One that has arrived completely is sent in one write, and needs no bulk buffers. */
async function passNar(exchange: Exchange, upstream: UpstreamConnection, deadline: Deadline): Promise<void> {
  const { client } = exchange;
  const { transport } = upstream;
  const walker = new NarWalker();
  const first = walker.push(transport.available);
  const reply = Buffer.allocUnsafe(LAST.length + first);
  reply.set(LAST);
  transport.available.copy(reply, LAST.length, 0, first);
  transport.consume(first);
  exchange.bytesOut += first;
  const written = client.write(reply);
  if (written) await written;
  if (walker.done) return;
  transport.bulk(true);
  client.bulk(true);
  try {
    while (!walker.done) {
      await upstream.fill();
      deadline.alive();
      const { available } = transport;
      const taken = walker.push(available);
      const waiting = client.write(available.subarray(0, taken));
      if (waiting) await waiting;
      exchange.bytesOut += taken;
      transport.consume(taken);
    }
  } finally {
    transport.bulk(false);
    client.bulk(false);
  }
}

const LAST = (() => {
  const encoder = new Encoder();
  encoder.u64(STDERR.last);
  return encoder.finish();
})();

/**
 * Newer clients ask by the derivation that theirs resolves to, which upstream wrote and nobody gave them. If another one's, the
 * answer would tell that somebody has built it (G1).
 */
async function mayAskAbout(derivation: StorePath, view: View): Promise<boolean> {
  return (await view.info(derivation)) !== undefined || (await view.isResolved(derivation));
}

type Realisations = ReplyOf<"QueryRealisation">;

export async function queryRealisation(
  exchange: Exchange,
  request: RequestOf<"QueryRealisation">,
): Promise<Realisations> {
  const { view } = exchange.sandbox;
  const { output } = request;
  if (typeof output === "string") {
    requireOutputId(output);
    // A hash says nothing of the view: whoever guesses it would learn that somebody has built that derivation.
    if (view.closed && !exchange.sandbox.realised.has(output)) return [];
    // Upstream, where it knows none by hashes, fails before it has read this one, and takes it for requests.
    if (await exchange.store.realisesByPath()) return [];
  } else if (!(await mayAskAbout(output.derivation, view))) return undefined;
  const upstream = await exchange.upstream();
  const reply = await guarded(exchange, upstream, "requestDeadline", async () => {
    void upstream.send("QueryRealisation", request);
    const refused = await upstream.outcome({});
    if (refused !== undefined) throw refusedByUpstream(exchange, refused);
    return upstream.reply("QueryRealisation");
  });
  if (reply === undefined) return undefined;
  if (!Array.isArray(reply))
    return (await view.info(reply.path)) ? { path: reply.path, signatures: [] } : undefined;
  const censored: string[] = [];
  for (const entry of reply) {
    const text = entry.startsWith("{")
      ? censorRealisation(entry, view.storeDir)
      : { path: entry, text: entry };
    if (text && (await view.info(text.path))) censored.push(text.text);
  }
  return censored;
}

/** The hash of a derivation modulo its inputs, and an output's name (src/libstore/realisation.cc). */
const OUTPUT_ID = /^sha256:[0-9a-f]{64}![0-9A-Za-z+\-._?=]{1,211}$/;

function requireOutputId(text: string): void {
  if (!OUTPUT_ID.test(text))
    throw new Refusal(
      `'${text.slice(0, 100)}' is not an output of a derivation: sha256:<64 digits>!<output>`,
    );
}

/**
 * A realisation as JSON (1.28 to 1.38 without the feature; src/libstore/realisation.cc) without its signatures
 * and dependencies.
 * @returns undefined for any other text
 */
export function censorRealisation(
  text: string,
  storeDir: string,
): { path: string; text: string } | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof parsed !== "object" || parsed === null) return undefined;
  const { id, outPath } = parsed as { id?: unknown; outPath?: unknown };
  if (typeof id !== "string" || typeof outPath !== "string") return undefined;
  const path = `${storeDir}/${outPath}`;
  if (!isStorePath(path, storeDir)) return undefined;
  return { path, text: JSON.stringify({ dependentRealisations: {}, id, outPath, signatures: [] }) };
}
