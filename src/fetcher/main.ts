/**
 * The fetcher: a program that downloads one file for the service, and ends. It reads a job from its standard input and
 * writes a reply, with the contents, to its standard output (`contract/fetch-job.ts`).
 */
import { rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import {
  type Attempt,
  FETCHER_FOLDER,
  type FetchJob,
  type FetchProgress,
  type FetchReply,
  LONGEST_LINE,
} from "../contract/fetch-job.ts";
import { type Contents, contentsOf } from "./contents.ts";
import { DownloadError, download } from "./download.ts";
import { Allowance, SpoolFull } from "./spool.ts";

/**
 * Ends the program when the service hangs up, also later: nobody would want what it does then, and a server can make that
 * last for as long as it likes.
 * @throws Error when the service sends too much
 */
function readLine(input: Readable): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    input.setEncoding("utf8");
    input.on("data", (piece: string) => {
      text += piece;
      const end = text.indexOf("\n");
      if (end !== -1) resolve(text.slice(0, end));
      else if (text.length > LONGEST_LINE) reject(new Error("no job came"));
    });
    for (const event of ["end", "error", "close"]) input.on(event, giveUp);
  });
}

function giveUp(): never {
  // Who made the folder may have been killed. It is empty: what is kept has no name.
  if (basename(tmpdir()).startsWith(FETCHER_FOLDER)) rmSync(tmpdir(), { recursive: true, force: true });
  process.exit(1);
}

/** What a certificate says, for one, may be long. Characters. */
const LONGEST_REASON = 1000;

async function fetch(job: FetchJob): Promise<{ reply: FetchReply; contents?: Contents }> {
  const attempts: Attempt[] = [];
  const asked: string[] = [];
  let got: string | undefined;
  for (const url of job.urls) {
    const [file, unpacked] = [new Allowance(job.bytes), new Allowance(2 * job.bytes)];
    try {
      const downloaded = await download(url, job.hash.algorithm, job, file, asked);
      const outcome = await contentsOf(downloaded, job, unpacked);
      if (outcome.found) {
        const { found: contents } = outcome;
        return { reply: { ok: true, asked, length: contents.length }, contents };
      }
      attempts.push({ url, reason: outcome.reason });
      got ??= outcome.got;
    } catch (error) {
      if (!(error instanceof DownloadError || error instanceof SpoolFull)) throw error;
      attempts.push({ url, reason: error.message.slice(0, LONGEST_REASON) });
    }
    for (const allowance of [file, unpacked]) allowance.release();
  }
  return { reply: { ok: false, asked, attempts, ...(got === undefined ? {} : { got }) } };
}

/** How often it says how far it is: it may be ended for others when it does not get on. */
const PROGRESS_MS = 5000;

const job = JSON.parse(await readLine(process.stdin)) as FetchJob;
// The service has hung up.
process.stdout.on("error", giveUp);
const told = setInterval(
  () => process.stdout.write(`${JSON.stringify({ progress: Allowance.taken } satisfies FetchProgress)}\n`),
  PROGRESS_MS,
);
const { reply, contents } = await fetch(job);
clearInterval(told);
function* said(): Generator<Buffer> {
  yield Buffer.from(`${JSON.stringify(reply)}\n`);
  if (contents) yield* contents.pieces();
}
await pipeline(Readable.from(said(), { objectMode: false }), process.stdout);
process.exit(0);
