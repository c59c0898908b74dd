/**
 * Marks that tell who asked the daemon for a build. The broker makes its own one a temporary root of the connection on
 * which it asks; the daemon notes the roots of each connection in a file of the process that serves it, which is the
 * one that builds. So root, who finds that process, learns who asked, whatever the derivation was resolved to, and
 * whoever else waits for the same build.
 *
 * A mark has the form of a store path that no store has: half of its hash is zeros. The other half is a secret, so that
 * nobody can give a build to somebody else's sandbox.
 */
import { BASE32_ALPHABET, encodeBase32 } from "./base32.ts";
import type { StorePath } from "./store-path.ts";

/** Random bytes of a mark. */
export const ASKER_SECRET_BYTES = 10;

/** What a mark starts with, which is enough to find it. */
export function askerMarkPrefix(storeDir: string): string {
  return `${storeDir}/${"0".repeat(16)}`;
}

/** @param secret {@link ASKER_SECRET_BYTES} random bytes */
export function askerMark(storeDir: string, secret: Uint8Array): StorePath {
  return `${askerMarkPrefix(storeDir)}${encodeBase32(secret)}${NAME}`;
}

export function isAskerMark(text: string, storeDir: string): boolean {
  const prefix = askerMarkPrefix(storeDir);
  return text.startsWith(prefix) && SECRET_AND_NAME.test(text.slice(prefix.length));
}

const NAME = "-nix-broker-asker";
const SECRET_AND_NAME = new RegExp(`^[${BASE32_ALPHABET}]{16}${NAME}$`);
