/**
 * The content address of what a client added itself. Upstream may have had the path before, and without one
 * (`nix-store --import`): told as it has it, the difference would tell that it did (G1).
 */
import { createHash } from "node:crypto";
import type { PathInfo } from "../../policy/view-queries.ts";
import { type HashedBy, printContentAddress } from "../../store/content-address.ts";
import { parseHash } from "../../store/hash.ts";
import { NarWalker } from "../../store/nar-walker.ts";
import { type Exchange, guarded, refusedByUpstream } from "./exchange.ts";

/** @throws Refusal when the contents cannot be read back */
export async function ownAddress(exchange: Exchange, info: PathInfo, by: HashedBy): Promise<string> {
  const { method, algorithm } = by;
  const ofNar = method === "nar" && algorithm === "sha256";
  const hash = ofNar
    ? parseHash(info.narHash, "sha256")
    : { algorithm, digest: await digestOf(exchange, info, by) };
  return printContentAddress({ method, hash });
}

async function digestOf(exchange: Exchange, { path }: PathInfo, by: HashedBy): Promise<Buffer> {
  const upstream = await exchange.upstream();
  const { transport } = upstream;
  const hash = createHash(by.algorithm);
  const walker = new NarWalker(by.method === "nar" ? undefined : (slice) => hash.update(slice));
  await guarded(exchange, upstream, "requestDeadline", async (deadline) => {
    void upstream.send("NarFromPath", { path });
    const refused = await upstream.outcome({});
    if (refused !== undefined) throw refusedByUpstream(exchange, refused);
    await upstream.reply("NarFromPath");
    for (;;) {
      const { available } = transport;
      const taken = walker.push(available);
      if (by.method === "nar") hash.update(available.subarray(0, taken));
      transport.consume(taken);
      if (walker.done) return;
      await upstream.fill();
      deadline.alive();
    }
  });
  return hash.digest();
}
