/** Adds a file by each of the ways that the protocol has. */
import { createHash } from "node:crypto";
import { type RawClient, STORE_DIR } from "../../lab/raw-client.ts";
import { u64 as u64Codec } from "../../src/protocol/codec.ts";
import { compile } from "../../src/protocol/compile.ts";
import { validPathInfo } from "../../src/protocol/types.ts";
import { Encoder } from "../../src/protocol/wire.ts";
import { contentAddressPath, printContentAddress } from "../../src/store/content-address.ts";
import { writeNar } from "../store/nar.ts";

export interface Added {
  readonly path: string;
  readonly error: string | undefined;
}

/** What AddToStoreNar and AddMultipleToStore tell of a path, true and complete for a NAR without references. */
export function narInfo(name: string, nar: Buffer) {
  const digest = createHash("sha256").update(nar).digest();
  const address = { method: "nar", hash: { algorithm: "sha256", digest } } as const;
  return {
    path: contentAddressPath(STORE_DIR, name, address, []),
    deriver: "",
    narHash: digest.toString("hex"),
    references: [] as string[],
    registrationTime: 0,
    narSize: nar.length,
    ultimate: false,
    signatures: [] as string[],
    contentAddress: printContentAddress(address),
  };
}
export type NarInfo = ReturnType<typeof narInfo>;

/**
 * - `nar`, `flat`: AddToStore by that method
 * - `metadata`: AddToStoreNar
 * - `many`: AddMultipleToStore (from 1.32 on)
 */
export async function addContents(
  client: RawClient,
  how: "nar" | "flat" | "metadata" | "many",
  name: string,
  contents: Buffer,
  { isNar = false } = {},
): Promise<Added> {
  const nar = isNar ? contents : writeNar({ type: "regular", contents });
  if (how === "metadata") {
    const info = narInfo(name, nar);
    const request = { ...info, repair: false, dontCheckSigs: false };
    return { path: info.path, error: (await client.ask("AddToStoreNar", request, [nar])).error };
  }
  if (how === "many") {
    const info = narInfo(name, nar);
    const answer = await client.ask("AddMultipleToStore", { repair: false, dontCheckSigs: false }, [
      items(client, [{ info, nar }]),
    ]);
    return { path: info.path, error: answer.error };
  }
  const flat = how === "flat";
  const answer =
    client.minor >= 25
      ? await client.ask(
          "AddToStore",
          { name, method: flat ? "fixed:sha256" : "fixed:r:sha256", references: [], repair: false },
          [flat ? contents : nar],
        )
      : await client.ask(
          "AddToStore",
          { name, fixed: flat, recursive: !flat, hashAlgorithm: "sha256" },
          // The older form carries a NAR of the file in both cases.
          [nar],
        );
  return { path: answer.reply?.path ?? "", error: answer.error };
}

/** The body of AddMultipleToStore. */
export function items(
  client: RawClient,
  entries: readonly { readonly info: NarInfo; readonly nar: Buffer }[],
): Buffer {
  const encoder = new Encoder();
  compile(u64Codec, client.table).encode(encoder, entries.length);
  const parts = [encoder.finish()];
  for (const { info, nar } of entries) {
    compile(validPathInfo, client.table).encode(encoder, info);
    parts.push(encoder.finish(), nar);
  }
  return Buffer.concat(parts);
}
