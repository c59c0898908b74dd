/** Downloads by http and https. Every URL on the way is checked, and so is every address. */
import { createHash } from "node:crypto";
import http from "node:http";
import https from "node:https";
import type { FetchJob } from "../contract/fetch-job.ts";
import { matchesUrlPattern } from "../policy/url-pattern.ts";
import type { HashAlgorithm } from "../store/hash.ts";
import { lookupFor, refuseLiteral } from "./public-address.ts";
import { type Allowance, type Spool, SpoolFull } from "./spool.ts";

const MOST_REDIRECTS = 10;
/** Servers refuse longer ones. Characters. */
const LONGEST_URL = 8192;
/** Of all URLs that are asked for: the audit has every one of them. Characters. */
const MOST_ASKED = 512 * 1024;
/** A server that sends less keeps a place from others. Bytes a second. */
const LEAST_SPEED = 1024;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

/** A URL that gives nothing; the message says why. */
export class DownloadError extends Error {
  override name = "DownloadError";
}

export interface Download {
  readonly spool: Spool;
  /** Of the file, in base 16. */
  readonly digest: string;
}

export type Rules = Pick<FetchJob, "patterns" | "privateHosts" | "patience">;

/**
 * @param asked gets every URL that is asked for
 * @throws DownloadError, SpoolFull, or the system's error when it cannot be kept
 */
export async function download(
  first: string,
  algorithm: HashAlgorithm,
  rules: Rules,
  allowance: Allowance,
  asked: string[],
): Promise<Download> {
  let url = allowed(first, rules);
  for (let redirects = 0; ; redirects++) {
    note(url.href, asked);
    const response = await answer(url, rules);
    const { statusCode = 0, headers } = response;
    if (statusCode >= 200 && statusCode < 300) return await keep(response, algorithm, allowance, rules);
    response.destroy();
    if (!REDIRECTS.has(statusCode) || headers.location === undefined)
      throw new DownloadError(
        `the server answered ${statusCode} ${response.statusMessage?.slice(0, 100) ?? ""}`.trim(),
      );
    if (redirects === MOST_REDIRECTS) throw new DownloadError("it is redirected again and again");
    url = allowed(headers.location, rules, url);
  }
}

/** @throws DownloadError when that is one too many */
function note(url: string, asked: string[]): void {
  if (url.length > LONGEST_URL)
    throw new DownloadError(`it has a URL of more than ${LONGEST_URL} characters`);
  if (asked.reduce((sum, { length }) => sum + length, url.length) > MOST_ASKED)
    throw new DownloadError("there are too many long URLs, or redirects to such");
  asked.push(url);
}

/** @throws DownloadError unless that URL may be fetched */
function allowed(text: string, { patterns, privateHosts }: Rules, from?: URL): URL {
  const parsed = URL.parse(text, from?.href);
  if (!parsed) throw new DownloadError(`'${text.slice(0, 500)}' is not a URL`);
  parsed.hash = "";
  // What is matched is what is asked for: the parser's reading of it, without user, password and dots.
  const redirected = from === undefined ? "" : `it is redirected to '${parsed.href.slice(0, 500)}', which `;
  if (
    !/^https?:$/.test(parsed.protocol) ||
    !patterns.some((pattern) => matchesUrlPattern(pattern, parsed.href))
  )
    throw new DownloadError(`${redirected || "the URL "}no pattern of the profile matches (fixed_outputs)`);
  const refused = refuseLiteral(parsed.hostname, privateHosts);
  if (refused !== undefined) throw new DownloadError(refused);
  return parsed;
}

function answer(url: URL, { privateHosts, patience }: Rules): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    const get = url.protocol === "https:" ? https.get : http.get;
    const request = get(url, {
      agent: false,
      lookup: lookupFor(privateHosts),
      // As it is: the hash is that of the file on the server.
      headers: { "user-agent": "nix-broker", accept: "*/*", "accept-encoding": "identity" },
    });
    // Not a time without anything: a server can send headers, and announce answers, drop by drop.
    const timer = setTimeout(
      () => request.destroy(new Error(`no answer came within ${patience} seconds`)),
      patience * 1000,
    );
    const answered = (response: http.IncomingMessage): void => {
      clearTimeout(timer);
      resolve(response);
    };
    request.on("response", answered);
    // Nobody asked for another protocol. Unless somebody listens for it, Node drops such an answer without a word.
    request.on("upgrade", (response, socket) => {
      socket.destroy();
      answered(response);
    });
    request.on("error", (error) => {
      clearTimeout(timer);
      reject(new DownloadError(error.message));
    });
  });
}

async function keep(
  response: http.IncomingMessage,
  algorithm: HashAlgorithm,
  allowance: Allowance,
  { patience }: Rules,
): Promise<Download> {
  const spool = allowance.newSpool();
  const hash = createHash(algorithm);
  let lately = 0;
  const watch = setInterval(() => {
    if (lately < LEAST_SPEED * patience)
      response.destroy(new Error(`it sent fewer than ${LEAST_SPEED} bytes a second for ${patience} seconds`));
    lately = 0;
  }, patience * 1000);
  try {
    for await (const piece of response as AsyncIterable<Buffer>) {
      lately += piece.length;
      hash.update(piece);
      spool.append(piece);
    }
    return { spool, digest: hash.digest("hex") };
  } catch (error) {
    if (error instanceof SpoolFull || (error as NodeJS.ErrnoException).syscall === "write") throw error;
    throw new DownloadError(`the transfer broke off: ${(error as Error).message}`);
  } finally {
    clearInterval(watch);
  }
}
