/** Operations that add paths with their metadata. Only content-addressed paths can be trusted. */

import { requireInView } from "../../policy/view-queries.ts";
import { EndOfStream } from "../../protocol/byte-stream.ts";
import { bytes as bytesCodec, u64 } from "../../protocol/codec.ts";
import { compile } from "../../protocol/compile.ts";
import { END_OF_FRAMES, FrameWriter } from "../../protocol/frames.ts";
import { logCodecs, STDERR } from "../../protocol/log-messages.ts";
import { MessageReader } from "../../protocol/message-reader.ts";
import type { RequestOf } from "../../protocol/operations.ts";
import { type ValidPathInfo, validPathInfo } from "../../protocol/types.ts";
import { Encoder, WireError } from "../../protocol/wire.ts";
import {
  type ContentAddress,
  ContentAddressError,
  contentAddressPath,
  parseContentAddress,
  printContentAddress,
  printContentAddressMethod,
} from "../../store/content-address.ts";
import { HashError, parseHash, printHash } from "../../store/hash.ts";
import { isDerivationPath, storePathName } from "../../store/store-path.ts";
import type { Deadline } from "../deadline.ts";
import { Refusal, tooLong } from "../refusal.ts";
import { MOST_ELEMENTS } from "../request-bounds.ts";
import type { UpstreamConnection } from "../upstream/connection.ts";
import { addDerivation, admitOne, methodOf } from "./add.ts";
import { type Exchange, type Pull, recordIntent, replyWithBody } from "./exchange.ts";
import { FramedSource } from "./framed-source.ts";
import { NarCheck } from "./nar-check.ts";
import { NarText } from "./nar-text.ts";

export async function addToStoreNar(
  exchange: Exchange,
  request: RequestOf<"AddToStoreNar">,
): Promise<undefined> {
  if (isDerivationPath(request.path)) {
    const nar = narText(exchange, request.narSize);
    await readNar(exchange, nar);
    await addDerivationNar(exchange, request, nar);
    return undefined;
  }
  const { check, forwarded } = await judge(exchange, request);
  recordIntent(exchange, [request.path]);
  const upstream = await exchange.upstream();
  const { body } = exchange;
  exchange.memory.arrived();
  const pull = body.kind === "pulled" ? pulling(exchange, upstream, check) : undefined;
  const sending = async (deadline: Deadline, stopped: () => boolean): Promise<void> => {
    if (body.kind !== "pulled") upstream.gather();
    await upstream.sendInPieces("AddToStoreNar", forwarded, exchange.sandbox.pace);
    if (body.kind === "pulled") return;
    await body.pass({
      write(bytes) {
        deadline.alive();
        return upstream.write(bytes);
      },
      flush: () => upstream.flush(),
      onContents: (slice) => requireAll(check.push(slice), slice),
      onEnd: () => check.finish(),
      stopped,
    });
  };
  await replyWithBody(exchange, upstream, "AddToStoreNar", sending, pull);
  if (body.kind === "pulled") await pullRest(exchange, check);
  await admitShown(exchange, upstream, forwarded);
  return undefined;
}

/** Lets in what was just added. Where its contents have shown all that is told of it, nothing has to be asked. */
async function admitShown(
  exchange: Exchange,
  upstream: UpstreamConnection,
  { path, narHash, narSize, references, contentAddress }: RequestOf<"AddToStoreNar">,
): Promise<void> {
  if (exchange.sandbox.view.closed && contentAddress.startsWith(NAR_ADDRESS)) {
    const info = { path, narHash, narSize, references, contentAddress };
    await exchange.sandbox.admitAdded(info, upstream, () => contentAddress);
  } else await admitOne(exchange, path, () => contentAddress);
}

/** Of contents whose hash is that of their NAR. */
const NAR_ADDRESS = "fixed:r:sha256:";

/** A derivation is judged like one that comes as a text; the path that it has by its text must be the one announced. */
async function addDerivationNar(
  exchange: Exchange,
  { path, contentAddress, references: named }: ValidPathInfo | RequestOf<"AddToStoreNar">,
  nar: NarText,
): Promise<void> {
  if (!contentAddress.startsWith("text:sha256:"))
    throw new Refusal(`'${path}' has the name of a derivation; derivations can be added only as texts`);
  const { view, pace } = exchange.sandbox;
  const references = await requireInView(view, named, pace);
  await addDerivation(exchange, storePathName(path), references, nar.text(), path);
}

/** Split up: daemons disagree on where an item ends, so each is forwarded separately. */
export async function addMultipleToStore(exchange: Exchange<"AddMultipleToStore">): Promise<undefined> {
  try {
    await addItems(exchange, new FramedSource(exchange.body));
  } catch (error) {
    // The frames around them are in order, so the next request can be read.
    if (error instanceof WireError) throw new Refusal(error.message);
    if (error instanceof EndOfStream && exchange.body.done)
      throw new Refusal("the data ends before the last of the announced paths");
    throw error;
  }
  return undefined;
}

async function addItems(exchange: Exchange<"AddMultipleToStore">, source: FramedSource): Promise<void> {
  const { pace, profile } = exchange.sandbox;
  const reader = new MessageReader(source, profile.limits.requestBytes, {
    pace,
    mostElements: MOST_ELEMENTS,
    room: exchange.memory,
  });
  const infoCodec = compile(validPathInfo, exchange.table);
  const count = await reader.read(compile(u64, exchange.table));
  const subjects: string[] = [];
  exchange.detail.paths = subjects;
  for (let i = 0; i < count; i++) {
    if (pace.due) await pace.pause();
    const info = await reader.read(infoCodec);
    if (subjects.length < MOST_SUBJECTS) subjects.push(info.path);
    exchange.memory.keep();
    await addItem(exchange, info, source);
    exchange.memory.release();
  }
  if (source.available.length > 0 || (await source.fill()))
    throw new Refusal("there are bytes after the last of the announced paths");
}

/** Paths of one request that are named in its audit record; the others are counted. */
const MOST_SUBJECTS = 1000;

async function addItem(exchange: Exchange, info: ValidPathInfo, source: FramedSource): Promise<void> {
  if (await exchange.sandbox.view.info(info.path)) {
    exchange.memory.arrived();
    // Nothing is believed about it, and nothing is needed.
    const check = new NarCheck(info.narSize, undefined);
    await walk(source, check, () => undefined);
    check.finish();
    return;
  }
  if (isDerivationPath(info.path)) {
    const nar = narText(exchange, info.narSize);
    await walk(source, nar, () => exchange.memory.reach(nar.held));
    exchange.memory.arrived();
    await addDerivationNar(exchange, info, nar);
    return;
  }
  exchange.memory.arrived();
  const { check, forwarded } = await judge(exchange, info);
  recordIntent(exchange, [info.path]);
  const upstream = await exchange.upstream();
  await replyWithBody(exchange, upstream, "AddToStoreNar", async (deadline, stopped) => {
    upstream.gather();
    await upstream.sendInPieces("AddToStoreNar", forwarded, exchange.sandbox.pace);
    const frames = new FrameWriter();
    await walk(source, check, async (slice) => {
      if (check.done) check.finish();
      if (stopped()) return;
      for (const piece of frames.frames(slice)) await writeAlive(upstream, piece, deadline);
    });
    await upstream.write(END_OF_FRAMES);
    await upstream.flush();
  });
  await admitShown(exchange, upstream, forwarded);
}

/** Reads one NAR, no byte more. */
async function walk(
  source: FramedSource,
  check: NarCheck | NarText,
  pass: (slice: Buffer) => Promise<void> | undefined,
): Promise<void> {
  while (!check.done) {
    if (source.available.length === 0 && !(await source.fill()))
      throw new Refusal("the data ends in the middle of a NAR");
    const { available } = source;
    const taken = check.push(available);
    await pass(available.subarray(0, taken));
    source.consume(taken);
  }
}

async function writeAlive(upstream: UpstreamConnection, bytes: Buffer, deadline: Deadline): Promise<void> {
  deadline.alive();
  const waiting = upstream.write(bytes);
  if (waiting) await waiting;
}

function narText({ sandbox }: Exchange, size: number): NarText {
  return new NarText(size, sandbox.profile.limits.textBytes);
}

/** Reads the whole NAR of a request, by whichever way its version brings it. */
async function readNar(exchange: Exchange, nar: NarText): Promise<void> {
  const { body } = exchange;
  if (body.kind === "pulled") {
    const pull = pullFrom(exchange);
    while (!nar.done) {
      await pull(LARGEST_PULL, (piece) => requireAll(nar.push(piece), piece));
      const waiting = exchange.memory.reach(nar.held);
      if (waiting) await waiting;
    }
  } else
    while (await body.next((slice) => requireAll(nar.push(slice), slice))) {
      const waiting = exchange.memory.reach(nar.held);
      if (waiting) await waiting;
    }
  exchange.memory.arrived();
}

/** Upstream asks, so the client is asked, and its piece is passed on (protocol 1.21 and 1.22). */
function pulling(exchange: Exchange, upstream: UpstreamConnection, check: NarCheck): Pull {
  const pull = pullFrom(exchange);
  const encoder = new Encoder();
  const pieceCodec = compile(bytesCodec, exchange.table);
  return async (length, deadline) => {
    const piece = await pull(Math.min(length, LARGEST_PULL), (taken) => {
      deadline.alive();
      checkPiece(check, taken);
    });
    pieceCodec.encode(encoder, piece);
    await upstream.write(encoder.finish());
  };
}

/** A daemon that has the path does not ask for its contents. Then the client is asked all the same, or it would learn that. */
async function pullRest(exchange: Exchange, check: NarCheck): Promise<void> {
  const pull = pullFrom(exchange);
  while (!check.done) await pull(LARGEST_PULL, (piece) => checkPiece(check, piece));
}

function checkPiece(check: NarCheck, piece: Buffer): void {
  requireAll(check.push(piece), piece);
  if (check.done) check.finish();
}

/** Asks the client for pieces of the body (protocol 1.21 and 1.22). */
function pullFrom(exchange: Exchange): (asked: number, see: (piece: Buffer) => void) => Promise<Buffer> {
  const { client, clientReader, table } = exchange;
  const encoder = new Encoder();
  const { number } = logCodecs(table);
  const pieceCodec = compile(bytesCodec, table);
  return async (asked, see) => {
    number.encode(encoder, STDERR.read);
    number.encode(encoder, asked);
    await client.write(encoder.finish());
    const piece = await clientReader.read(pieceCodec);
    exchange.bytesIn += piece.length;
    if (piece.length > asked || piece.length === 0)
      throw new Refusal("the client sent a piece of a different size than it was asked for", { fatal: true });
    see(piece);
    return piece;
  };
}

/** Small, for it is not counted in `runtime.memory`; daemons ask for no more. Bytes. */
const LARGEST_PULL = 32 * 1024;

function requireAll(taken: number, slice: Buffer): void {
  if (taken < slice.length) throw new Refusal("there are bytes after the end of the NAR");
}

interface Judged {
  /** What the contents must be. */
  readonly check: NarCheck;
  /** The request for upstream, rewritten, without what only a trusted client may set. */
  readonly forwarded: RequestOf<"AddToStoreNar">;
}

/** @throws Refusal if the path cannot be checked by its contents alone. */
async function judge(exchange: Exchange, info: ValidPathInfo | RequestOf<"AddToStoreNar">): Promise<Judged> {
  const { sandbox } = exchange;
  const { path } = info;
  if (info.contentAddress === "")
    throw new Refusal(
      `'${path}' is not content-addressed, so nothing shows that it is what it says; a sandbox cannot add it`,
    );
  if (info.references.includes(path))
    throw new Refusal(`'${path}' refers to itself, which a sandbox cannot add`);
  const address = addressOf(info.contentAddress);
  const references = await requireInView(sandbox.view, info.references, sandbox.pace);
  const expected = contentAddressPath(sandbox.view.storeDir, storePathName(path), address, references);
  if (expected !== path) throw new Refusal(`'${path}' is not the path that follows from its content address`);
  const narHash = hashOf(info.narHash);
  if (
    address.method === "nar" &&
    address.hash.algorithm === "sha256" &&
    printHash(address.hash, "base16", false) !== narHash
  )
    throw new Refusal(`the content address of '${path}' is not the hash of its NAR`);
  if (info.narSize > exchange.body.limit) throw tooLong("bodyBytes", exchange.body.limit);
  sandbox.quota.addBytes(info.narSize);
  return {
    check: new NarCheck(info.narSize, address),
    forwarded: {
      path,
      deriver: "",
      narHash,
      references,
      registrationTime: 0,
      narSize: info.narSize,
      ultimate: false,
      signatures: [],
      contentAddress: printContentAddress(address),
      repair: false,
      dontCheckSigs: false,
    },
  };
}

function addressOf(text: string): ContentAddress {
  let address: ContentAddress;
  try {
    address = parseContentAddress(text);
  } catch (error) {
    if (error instanceof ContentAddressError || error instanceof HashError) throw new Refusal(error.message);
    throw error;
  }
  methodOf(printContentAddressMethod({ method: address.method, algorithm: address.hash.algorithm }));
  return address;
}

function hashOf(text: string): string {
  try {
    return printHash(parseHash(text, "sha256"), "base16", false);
  } catch (error) {
    if (error instanceof HashError) throw new Refusal(error.message);
    throw error;
  }
}
