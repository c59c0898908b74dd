/**
 * AddToStoreScanning: the client does not say what its contents refer to. Implemented here for any upstream:
 * the contents are spooled to a file while they are scanned for the hash parts of the view, then sent
 * upstream as an AddToStore with the references that were found.
 */

import { type FileHandle, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { END_OF_FRAMES, FrameWriter } from "../../protocol/frames.ts";
import type { ReplyOf, RequestOf } from "../../protocol/operations.ts";
import { ReferenceScanner } from "../../store/reference-scanner.ts";
import { storePathHash } from "../../store/store-path.ts";
import { Refusal, tooLong } from "../refusal.ts";
import { admitAdded, methodOf, requireName, told } from "./add.ts";
import { type Exchange, recordIntent, replyWithBody } from "./exchange.ts";
import { GrowingBuffer } from "./growing-buffer.ts";

export async function addToStoreScanning(
  exchange: Exchange<"AddToStoreScanning">,
  { name, method }: RequestOf<"AddToStoreScanning">,
): Promise<ReplyOf<"AddToStoreScanning">> {
  const by = methodOf(method);
  requireName(name);
  if (name.endsWith(".drv"))
    throw new Refusal(`'${name}' has the name of a derivation; add it as a text, with its references`);
  const file = await temporaryFile().catch(cannotSpool);
  try {
    await spool(exchange, file);
    const references = await referencesIn(exchange, file);
    if (by.method === "flat" && references.length > 0)
      throw new Refusal(
        `'${name}' refers to ${references.length} paths, which a path with the method '${method}' cannot`,
      );
    recordIntent(exchange, [name]);
    const upstream = await exchange.upstream();
    const reply = await replyWithBody(exchange, upstream, "AddToStore", async (deadline, stopped) => {
      const added = { name, method, references: references.sort(), repair: false };
      await upstream.sendInPieces("AddToStore", added, exchange.sandbox.pace);
      const frames = new FrameWriter();
      for await (const chunk of file.createReadStream({ start: 0, autoClose: false })) {
        if (stopped()) return;
        deadline.alive();
        for (const piece of frames.frames(chunk as Buffer)) await upstream.write(piece);
      }
      await upstream.write(END_OF_FRAMES);
    });
    return told(exchange, await admitAdded(exchange, upstream, reply, by));
  } finally {
    await file.close();
  }
}

/** A file that no longer has a name, so that nothing is left behind whatever happens. */
async function temporaryFile(): Promise<FileHandle> {
  const folder = await mkdtemp(join(tmpdir(), "nix-broker-scan-"));
  try {
    return await open(join(folder, "contents"), "wx+", 0o600);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The disk is full, or the folder is missing: the system's message is not for the client. */
function cannotSpool(error: unknown): never {
  throw new Refusal("nix-broker has no room to scan the contents; the reason is in its audit log", {
    verdict: "forward",
    reason: `cannot write to ${tmpdir()}: ${(error as Error).message}`,
  });
}

/** Only when all has arrived, at the speed of the disk: so no client is waited for while memory is held. */
async function referencesIn({ budget, sandbox }: Exchange, file: FileHandle): Promise<string[]> {
  const { view, quota, pace } = sandbox;
  const share = await budget.toScan(quota, view.closed ? view.size : Number.POSITIVE_INFINITY);
  try {
    const hashParts = (await view.all()).map(storePathHash);
    const scanner = await ReferenceScanner.gradually(hashParts, setImmediate);
    for await (const chunk of file.createReadStream({ start: 0, autoClose: false })) {
      scanner.push(chunk as Buffer);
      if (pace.due) await pace.pause();
    }
    const references: string[] = [];
    for (const hash of scanner.found) {
      const path = await view.byHashPart(hash);
      if (path) references.push(path);
    }
    return references;
  } finally {
    share.release();
  }
}

async function spool(exchange: Exchange, file: FileHandle): Promise<void> {
  const { body, sandbox } = exchange;
  for (;;) {
    const arrived = new GrowingBuffer();
    if (!(await body.next((slice) => arrived.append(slice)))) return;
    const { held } = arrived;
    sandbox.quota.addBytes(held.length);
    if (body.length > body.limit) throw tooLong("bodyBytes", body.limit);
    await file.writeFile(held).catch(cannotSpool);
  }
}
