/** The greeting of a client: what it is offered, and whether it can be served at all. */
import { tableFor } from "../protocol/dialect-table.ts";
import { type ClientGreeting, greetClient } from "../protocol/handshake.ts";
import { MessageReader } from "../protocol/message-reader.ts";
import { type Dialect, type Feature, NEWEST_MINOR, OLDEST_MINOR } from "../protocol/version.ts";
import { Refusal } from "./refusal.ts";
import type { Replies } from "./replies.ts";
import type { Sandbox } from "./sandbox.ts";
import { troubleOf } from "./told-errors.ts";
import type { Transport } from "./upstream/connection.ts";
import type { UpstreamPool } from "./upstream/pool.ts";

/** A greeting consists of a few small messages; a client that takes longer is not worth waiting for. */
export const GREETING_SECONDS = 60;
/** Greetings contain a few names of features: a client that may not even connect must not make us store more. */
const GREETING_BYTES = 64 * 1024;
/** Reported as the daemon's version, always the same: the real version would reveal something about the host. */
const VERSION_TEXT = "nix-broker";
/** Implemented by the broker itself, whatever upstream supports. */
const OWN_FEATURES: readonly Feature[] = ["add-to-store-scanning", "addTempRoots", "queryPathInfos"];

/** For clients that get nothing but the reason. */
export const NOTHING_OFFERED: Dialect = { minor: NEWEST_MINOR, features: new Set() };

export interface Offer {
  readonly dialect: Dialect;
  /** Why nobody can be served now; undefined if clients can. */
  readonly trouble: Refusal | undefined;
}

/** Finds out what upstream supports, and creates the view. Never throws: a client is told after the greeting. */
export async function makeOffer(sandbox: Sandbox, pool: UpstreamPool): Promise<Offer> {
  let trouble = sandbox.ended === undefined ? undefined : new Refusal(sandbox.ended);
  let { facts } = pool;
  try {
    facts ??= await pool.probe();
    if (trouble === undefined) await sandbox.begin();
  } catch (error) {
    trouble ??= troubleOf(error as Error);
  }
  const features = new Set([...(facts?.features ?? []), ...OWN_FEATURES]);
  return { dialect: { minor: facts?.minor ?? NEWEST_MINOR, features }, trouble };
}

/** Shakes hands: from now on the client is addressed in the dialect that both it and the offer support. */
export async function agree(client: Transport, replies: Replies, offered: Dialect): Promise<ClientGreeting> {
  const greeting = await greetClient(
    new MessageReader(client, GREETING_BYTES),
    (message, isLast) => (isLast ? replies.hold(message) : client.write(message)),
    offered,
    VERSION_TEXT,
  );
  const { minor, features } = greeting;
  replies.table = tableFor({ minor, features, storeDir: replies.table.storeDir });
  return greeting;
}

/** @returns why this client cannot be served; undefined if it can */
export function refuseOld({ tooOld, minor }: ClientGreeting): Refusal | undefined {
  if (!tooOld) return undefined;
  return new Refusal(
    `this client speaks protocol 1.${minor}; nix-broker needs 1.${OLDEST_MINOR} (Nix 2.3) or newer`,
  );
}

/** The dialect for upstream, for a client that uses `dialect`. */
export function upstreamDialect({ minor, features }: Dialect): Dialect {
  return { minor, features: new Set([...features].filter((feature) => !OWN_FEATURES.includes(feature))) };
}
