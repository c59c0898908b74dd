/** Operations that add paths to the store: what is checked, and how they are forwarded. */
import { refuseFixedPath, refuseInputs } from "../../policy/derivation-rules.ts";
import { censored } from "../../policy/rules.ts";
import { type MaybePromise, type PathInfo, requireInView } from "../../policy/view-queries.ts";
import { END_OF_FRAMES, FrameWriter } from "../../protocol/frames.ts";
import type { ReplyOf, RequestOf } from "../../protocol/operations.ts";
import type { ValidPathInfo } from "../../protocol/types.ts";
import {
  contentAddressPath,
  type HashedBy,
  parseContentAddressMethod,
  printContentAddressMethod,
} from "../../store/content-address.ts";
import { type Derivation, DerivationError, derivationOf, outputKind } from "../../store/derivation.ts";
import { sha256 } from "../../store/hash.ts";
import { inSlices } from "../../store/slices.ts";
import { isStoreName, type StorePath } from "../../store/store-path.ts";
import type { Deadline } from "../deadline.ts";
import { Refusal, tooLong } from "../refusal.ts";
import type { UpstreamConnection } from "../upstream/connection.ts";
import { isKept, OUTPUT_MAP_SINCE, pathInfo } from "../upstream/store.ts";
import { type Exchange, guarded, recordIntent, refusedByUpstream, replyWithBody } from "./exchange.ts";
import { ownAddress } from "./own-address.ts";

/**
 * How contents may be addressed. An unknown method makes upstream answer before it reads the body, and weak
 * hashes let two contents share a path.
 */
export const ALLOWED_METHODS: ReadonlyMap<string, HashedBy> = new Map(
  ["text:sha256", "fixed:sha256", "fixed:r:sha256", "fixed:sha512", "fixed:r:sha512"].map((text) => [
    text,
    parseContentAddressMethod(text),
  ]),
);
const TEXT: HashedBy = { method: "text", algorithm: "sha256" };
const DERIVATION_SUFFIX = ".drv";

/** AddToStore has the newer form from this version on. */
export const NEW_FORM_SINCE = 25;

export async function addToStore(
  exchange: Exchange<"AddToStore">,
  request: RequestOf<"AddToStore">,
): Promise<ReplyOf<"AddToStore">> {
  const { name } = request;
  const by = methodOf("method" in request ? request.method : oldMethod(request));
  requireName(name);
  const { view, pace } = exchange.sandbox;
  const references = await requireInView(view, "references" in request ? request.references : [], pace);
  if (name.endsWith(DERIVATION_SUFFIX)) {
    if (by.method !== "text")
      throw new Refusal(`'${name}' has the name of a derivation, so it can be added only as a text`);
    const text = await exchange.body.collect(textLimit(exchange));
    return told(exchange, await addDerivation(exchange, name, references, text));
  }
  recordIntent(exchange, [name]);
  const upstream = await exchange.upstream();
  const limit = by.method === "text" ? textLimit(exchange) : exchange.body.limit;
  const reply = await replyWithBody(exchange, upstream, "AddToStore", async (deadline, stopped) => {
    upstream.gather();
    await upstream.sendInPieces(
      "AddToStore",
      "references" in request
        ? { name, method: printContentAddressMethod(by), references, repair: false }
        : { name, fixed: true, recursive: by.method === "nar", hashAlgorithm: by.algorithm },
      pace,
    );
    await passBody(exchange, upstream, deadline, stopped, limit);
  });
  return told(exchange, await admitAdded(exchange, upstream, reply, by));
}

export async function addTextToStore(
  exchange: Exchange<"AddTextToStore">,
  { name, text, references: named }: RequestOf<"AddTextToStore">,
): Promise<ReplyOf<"AddTextToStore">> {
  requireName(name);
  const references = await requireInView(exchange.sandbox.view, named, exchange.sandbox.pace);
  const contents = Buffer.from(text, "latin1");
  if (contents.length > textLimit(exchange)) throw tooLong("textBytes", textLimit(exchange));
  if (name.endsWith(DERIVATION_SUFFIX))
    return told(exchange, await addDerivation(exchange, name, references, contents));
  exchange.sandbox.quota.addBytes(contents.length);
  return told(exchange, await addText(exchange, name, references, contents));
}

/**
 * A derivation is judged before upstream sees it, and its path is also known before.
 * @param announced the path that the client says it has, if it says so
 * @throws Refusal
 */
export async function addDerivation(
  exchange: Exchange,
  name: string,
  references: readonly StorePath[],
  text: Buffer,
  announced?: StorePath,
): Promise<PathInfo> {
  const { sandbox } = exchange;
  const refuse = (reason: string): never => {
    throw new Refusal(`derivation '${name}' is not allowed here: ${reason}`);
  };
  let derivation: Derivation | undefined;
  const share = await exchange.budget.toParse(sandbox.quota, text.length);
  try {
    const parsed = await inSlices(derivationOf(text), sandbox.pace);
    const reason =
      refuseFixedPath(parsed, sandbox.view.storeDir, name) ??
      refuseInputs(parsed, references) ??
      refuseTooNew(parsed, exchange.table.minor);
    if (reason !== undefined) refuse(reason);
    // A large one is read again when it is needed, and takes no memory until then.
    if (isKept(parsed)) derivation = parsed;
  } catch (error) {
    if (error instanceof DerivationError) return refuse(error.message);
    throw error;
  } finally {
    share.release();
  }
  sandbox.quota.addBytes(text.length);
  const digest = await inSlices(sha256(text), sandbox.pace);
  const path = contentAddressPath(
    sandbox.view.storeDir,
    name,
    { method: "text", hash: { algorithm: "sha256", digest } },
    references,
  );
  if (announced !== undefined && path !== announced) refuse(`its text does not make the path '${announced}'`);
  const info = await addText(exchange, name, references, text);
  if (info.path !== path)
    throw new Refusal(`the nix-daemon gave '${name}' another path than its text has`, { verdict: "forward" });
  if (derivation) exchange.store.remember(info, derivation);
  return info;
}

/** What upstream would refuse with a parser error. */
function refuseTooNew({ outputs }: Derivation, minor: number): string | undefined {
  if (minor >= OUTPUT_MAP_SINCE) return undefined;
  const floating = [...outputs].find(([, output]) => outputKind(output) === "floating");
  return (
    floating &&
    `its output '${floating[0]}' is content-addressed, which the nix-daemon of this machine (Nix 2.3) does not have`
  );
}

/** What the client is told of the path that it added; the record names it, for the request did so without its hash. */
export function told(
  exchange: Exchange<"AddToStore" | "AddTextToStore" | "AddToStoreScanning">,
  info: PathInfo,
): ValidPathInfo {
  exchange.detail.path = info.path;
  return { path: info.path, ...censored(info) };
}

/** Adds a text that is held in memory, in the form that the client's version has. */
async function addText(
  exchange: Exchange,
  name: string,
  references: readonly StorePath[],
  text: Buffer,
): Promise<PathInfo> {
  recordIntent(exchange, [name]);
  const upstream = await exchange.upstream();
  if (upstream.table.minor >= NEW_FORM_SINCE) {
    const reply = await replyWithBody(exchange, upstream, "AddToStore", async () => {
      upstream.gather();
      const added = { name, method: "text:sha256", references: [...references], repair: false };
      await upstream.sendInPieces("AddToStore", added, exchange.sandbox.pace);
      // In frames, the first of which has two bytes (see `protocol/frames.ts`).
      for (const piece of [...new FrameWriter().frames(text), END_OF_FRAMES]) {
        const waiting = upstream.write(piece);
        if (waiting) await waiting;
      }
      await upstream.flush();
    });
    return admitAdded(exchange, upstream, reply, TEXT);
  }
  const reply = await guarded(exchange, upstream, "requestDeadline", async () => {
    const added = { name, text: text.toString("latin1"), references: [...references] };
    await upstream.sendInPieces("AddTextToStore", added, exchange.sandbox.pace);
    const refused = await upstream.outcome({});
    if (refused !== undefined) throw refusedByUpstream(exchange, refused);
    return upstream.reply("AddTextToStore");
  });
  return admitAdded(exchange, upstream, reply, TEXT);
}

/** Adds to the view what upstream has just added, by its reply: which path that is, and what it is if the reply tells that. */
export async function admitAdded(
  exchange: Exchange,
  upstream: UpstreamConnection,
  reply: ReplyOf<"AddToStore" | "AddTextToStore">,
  by: HashedBy,
): Promise<PathInfo> {
  const address = (info: PathInfo): MaybePromise<string> => ownAddress(exchange, info, by);
  if (!("narHash" in reply)) return admitOne(exchange, reply.path, address);
  return exchange.sandbox.admitAdded(pathInfo(reply.path, reply), upstream, address);
}

/**
 * @param address the content address by which the client added it
 * @throws Refusal if upstream does not have the path after all
 */
export async function admitOne(
  exchange: Exchange,
  path: StorePath,
  address: (info: PathInfo) => MaybePromise<string>,
): Promise<PathInfo> {
  await exchange.sandbox.admit([path], (info) => (info.path === path ? address(info) : ""));
  const info = await exchange.sandbox.view.info(path);
  if (!info)
    throw new Refusal(`upstream does not have '${path}', which it has just added`, { verdict: "forward" });
  return info;
}

/** Passes on a body of which only the length has to be checked. */
async function passBody(
  exchange: Exchange,
  upstream: UpstreamConnection,
  deadline: Deadline,
  stopped: () => boolean,
  limit: number,
): Promise<void> {
  const { body, sandbox } = exchange;
  await body.pass({
    write(bytes) {
      deadline.alive();
      sandbox.quota.addBytes(bytes.length);
      return upstream.write(bytes);
    },
    flush: () => upstream.flush(),
    onEnd() {
      if (body.length > limit) throw tooLong("textBytes", limit);
    },
    stopped,
  });
}

/** How the contents are to be hashed. @throws Refusal unless that is among `ALLOWED_METHODS` */
export function methodOf(text: string): HashedBy {
  const by = ALLOWED_METHODS.get(text);
  if (by) return by;
  throw new Refusal(
    `the content-address method '${text.slice(0, 100)}' is not allowed; these are: ${[...ALLOWED_METHODS.keys()].join(", ")}`,
  );
}

/** Before 1.25: `fixed` unset means sha256 of the NAR, whatever the other fields say. */
function oldMethod(request: { fixed: boolean; recursive: boolean; hashAlgorithm: string }): string {
  return request.fixed ? `fixed:${request.recursive ? "r:" : ""}${request.hashAlgorithm}` : "fixed:r:sha256";
}

export function requireName(name: string): void {
  if (!isStoreName(name)) throw new Refusal(`'${name.slice(0, 300)}' cannot be the name of a store path`);
}

function textLimit(exchange: Exchange): number {
  return exchange.sandbox.profile.limits.textBytes;
}
