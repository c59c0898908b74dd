/**
 * What the service asks of a fetcher, and what it gets: a line of JSON each way, then the contents.
 *
 * The service has no network, and a fetcher has nothing else: no socket of the daemon's, no audit, no files but
 * what it downloads. Both sides are ours, but what a fetcher says comes from the network: the service takes it for
 * no more than a message, and the contents for what their hash says.
 */
import type { HashAlgorithm } from "../store/hash.ts";
import { isObject } from "./sandbox-record.ts";

/** How what was downloaded becomes the contents of the output. */
export type Shape =
  /** The file itself. */
  | "file"
  /** The file itself, executable. */
  | "executable"
  /** The one folder of an archive, without its name. */
  | "stripped"
  /** Everything in an archive. */
  | "whole";

export interface FetchJob {
  /** In the order in which they are tried. */
  readonly urls: readonly string[];
  /** Each URL, those of redirects included, must match one of them (`policy/url-pattern.ts`). */
  readonly patterns: readonly string[];
  /** Hosts that may have addresses of this machine, or of private networks. */
  readonly privateHosts: readonly string[];
  readonly hash: { readonly algorithm: HashAlgorithm; readonly digest: string };
  /** Whether the hash is that of the file, or of the NAR. */
  readonly hashed: "flat" | "nar";
  /** What the contents may be; the first is what the derivation says. */
  readonly shapes: readonly Shape[];
  /** Whether the contents are sent as they are, or as a NAR. */
  readonly sent: "flat" | "nar";
  /** The longest download, and the most that an archive may hold. Bytes. */
  readonly bytes: number;
  /** How long a server may take to answer, and then send next to nothing. Seconds. */
  readonly patience: number;
}

/** A URL that gave nothing, and why. */
export interface Attempt {
  readonly url: string;
  readonly reason: string;
}

export type FetchReply = {
  /** Every URL that a server was asked for, in order: the last one gave the contents, if any did. */
  readonly asked: readonly string[];
} & (
  | {
      readonly ok: true;
      /** The length of what follows. Bytes. */
      readonly length: number;
    }
  | {
      readonly ok: false;
      readonly attempts: readonly Attempt[];
      /** The hash that the first shape has, in base 16, if something was downloaded that has it not. */
      readonly got?: string;
    }
);

/** Said while it downloads and unpacks, each in a line of its own before the reply. */
export interface FetchProgress {
  /** Bytes so far, of what was downloaded and of what that unpacked to. */
  readonly progress: number;
}

/** The longest line of either side: it holds every URL that was named, and that was asked for. Bytes. */
export const LONGEST_LINE = 2 * 1024 * 1024;

/** What the name of a folder begins with that is made for one fetcher. */
export const FETCHER_FOLDER = "nix-broker-fetch-";

/** @throws Error when a fetcher's line is neither */
export function parseReply(line: string): FetchReply | FetchProgress {
  const reply: unknown = JSON.parse(line);
  if (!isObject(reply)) throw noReply();
  const { progress } = reply;
  if (typeof progress === "number" && Number.isSafeInteger(progress)) return { progress };
  const { ok, asked, length, attempts, got } = reply;
  if (!Array.isArray(asked) || !asked.every((url) => typeof url === "string")) throw noReply();
  if (ok === true) {
    if (typeof length !== "number" || !Number.isSafeInteger(length) || length < 0) throw noReply();
    return { ok, asked, length };
  }
  if (ok !== false || !Array.isArray(attempts) || !attempts.every(isAttempt)) throw noReply();
  if (got === undefined) return { ok, asked, attempts };
  if (typeof got !== "string" || !/^[0-9a-f]+$/.test(got)) throw noReply();
  return { ok, asked, attempts, got };
}

function isAttempt(value: unknown): value is Attempt {
  return isObject(value) && typeof value.url === "string" && typeof value.reason === "string";
}

function noReply(): Error {
  return new Error("its message is not a reply");
}
