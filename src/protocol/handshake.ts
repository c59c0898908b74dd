/**
 * The greeting, both sides of it (src/libstore/worker-protocol-connection.cc in the Nix tree).
 *
 *     client                          daemon
 *     magic 1                   ──►
 *                               ◄──   magic 2, version
 *     version                   ──►
 *     features (1.38)           ──►
 *                               ◄──   features (1.38)
 *     0 (CPU affinity), 0       ──►
 *                               ◄──   version text (1.33), trust (1.35)
 *                               ◄──   log messages, then "last"
 */
import { set, string, u64 } from "./codec.ts";
import { type Compiled, compile } from "./compile.ts";
import type { MessageReader } from "./message-reader.ts";
import {
  type Dialect,
  FEATURES_SINCE,
  knownFeatures,
  OLDEST_MINOR,
  versionFromWire,
  versionToWire,
} from "./version.ts";
import { Encoder, WireError } from "./wire.ts";

const MAGIC_1 = 0x6e697863;
const MAGIC_2 = 0x6478696f;
/** From Determinate Nix instead of the second magic number, to users who may not connect; it hangs up then. */
const MAGIC_ACCESS_DENIED = 0xab9a9ff0;
const TEXT_SINCE = 33;
const TRUST_SINCE = 35;

/** What a daemon says about the client (protocol 1.35). */
export const TRUST = { unknown: 0, trusted: 1, notTrusted: 2 } as const;

/** No operation is read here, so neither version nor store folder matters. */
const plain = { minor: 0, features: new Set<never>(), storeDir: "" };
const numberCodec = compile(u64, plain);
const stringCodec = compile(string, plain);
const stringsCodec = compile(set(string), plain);

/** Sends a whole message. */
type Send = (message: Buffer) => unknown;

/** As `Send`; the last one may wait until there is more to be sent. */
type SendGreeting = (message: Buffer, isLast: boolean) => unknown;

export interface ClientGreeting extends Dialect {
  /** The client's own newest version. */
  readonly clientMinor: number;
  /** The version is older than those of the table: only an error may be sent. */
  readonly tooOld: boolean;
}

export interface DaemonGreeting extends Dialect {
  /** The daemon's own newest version. */
  readonly daemonMinor: number;
  /** The daemon's Nix version, if it tells (1.33). */
  readonly nixVersion: string | undefined;
  readonly trust: number;
}

/**
 * The daemon's side: up to and without the log messages at the end. What is to be said is sent when the client has to be
 * waited for, as each write wakes it.
 * @param offered the version and the features to offer
 * @param versionText told to the client as the daemon's version
 * @throws WireError when the client does not speak this protocol.
 */
export async function greetClient(
  reader: MessageReader,
  send: SendGreeting,
  offered: Dialect,
  versionText: string,
): Promise<ClientGreeting> {
  const encoder = new Encoder();
  const read = <T>(codec: Compiled<T>): T | Promise<T> => {
    const message = reader.read(codec);
    if (message instanceof Promise && encoder.size > 0) send(encoder.finish(), false);
    return message;
  };
  const magic = await read(numberCodec);
  if (magic !== MAGIC_1)
    throw new WireError("the client does not speak the Nix worker protocol (its first bytes are wrong)");
  encoder.u64(MAGIC_2);
  encoder.u64(versionToWire(offered.minor));
  const clientMinor = versionFromWire(await read(numberCodec));
  if (clientMinor === undefined) {
    send(encoder.finish(), false);
    throw new WireError("the client speaks another major version of the protocol");
  }
  const minor = Math.min(clientMinor, offered.minor);

  let features = new Set<Dialect["features"] extends ReadonlySet<infer F> ? F : never>();
  if (minor >= FEATURES_SINCE) {
    features = knownFeatures(await read(stringsCodec), offered.features);
    stringsCodec.encode(encoder, [...offered.features].sort());
  }
  if (minor >= 14 && (await read(numberCodec)) !== 0) await read(numberCodec);
  if (minor >= 11) await read(numberCodec);
  if (minor >= TEXT_SINCE) encoder.string(versionText);
  if (minor >= TRUST_SINCE) encoder.u64(TRUST.notTrusted);
  if (encoder.size > 0) send(encoder.finish(), true);
  return { minor, features, clientMinor, tooOld: minor < OLDEST_MINOR };
}

/**
 * The client's side: up to and without the log messages at the end.
 * @param wanted the newest version and the features to ask for
 * @throws WireError when the peer does not speak this protocol, or is older than 1.21.
 */
export async function greetDaemon(
  reader: MessageReader,
  send: Send,
  wanted: Dialect,
): Promise<DaemonGreeting> {
  const encoder = new Encoder();
  encoder.u64(MAGIC_1);
  encoder.u64(versionToWire(wanted.minor));
  send(encoder.finish());
  const magic = await reader.read(numberCodec);
  if (magic === MAGIC_ACCESS_DENIED)
    throw new WireError(
      "the nix-daemon denies access to this user: it must be among its allowed-users, and not a build user",
    );
  if (magic !== MAGIC_2)
    throw new WireError("upstream does not speak the Nix worker protocol (its first bytes are wrong)");
  const daemonMinor = versionFromWire(await reader.read(numberCodec));
  if (daemonMinor === undefined) throw new WireError("upstream speaks another major version of the protocol");
  if (daemonMinor < OLDEST_MINOR)
    throw new WireError(
      `upstream speaks protocol 1.${daemonMinor}; nix-broker needs 1.${OLDEST_MINOR} (Nix 2.3) or newer`,
    );
  const minor = Math.min(daemonMinor, wanted.minor);

  let features = new Set<Dialect["features"] extends ReadonlySet<infer F> ? F : never>();
  if (minor >= FEATURES_SINCE) {
    stringsCodec.encode(encoder, [...wanted.features].sort());
    send(encoder.finish());
    features = knownFeatures(await reader.read(stringsCodec), wanted.features);
  }
  encoder.u64(0);
  encoder.u64(0);
  send(encoder.finish());
  const nixVersion = minor >= TEXT_SINCE ? await reader.read(stringCodec) : undefined;
  const trust = minor >= TRUST_SINCE ? await reader.read(numberCodec) : TRUST.unknown;
  return { minor, features, daemonMinor, nixVersion, trust };
}
