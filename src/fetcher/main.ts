/**
 * The fetcher: a program that downloads one file for the service, and ends. It reads a job from its standard input and
 * writes a reply, with the contents, to its standard output (`contract/fetch-job.ts`).
 */
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { type Attempt, type FetchJob, type FetchReply, LONGEST_LINE } from "../contract/fetch-job.ts";
import { type Contents, contentsOf } from "./contents.ts";
import { DownloadError, download } from "./download.ts";
import { Allowance, SpoolFull } from "./spool.ts";

/** @throws Error when the service hangs up, or sends too much */
async function readLine(input: Readable): Promise<string> {
  let text = "";
  for await (const piece of input.setEncoding("utf8") as AsyncIterable<string>) {
    text += piece;
    if (text.includes("\n")) return text.slice(0, text.indexOf("\n"));
    if (text.length > LONGEST_LINE) break;
  }
  throw new Error("no job came");
}

async function fetch(job: FetchJob): Promise<{ reply: FetchReply; contents?: Contents }> {
  const attempts: Attempt[] = [];
  let got: string | undefined;
  for (const url of job.urls) {
    const allowance = new Allowance(2 * job.bytes);
    try {
      const downloaded = await download(url, job.hash.algorithm, job, new Allowance(job.bytes));
      const outcome = await contentsOf(downloaded, job, allowance);
      if (outcome.found) {
        const { found: contents } = outcome;
        return { reply: { ok: true, hops: downloaded.hops, length: contents.length }, contents };
      }
      downloaded.spool.close();
      attempts.push({ url, reason: outcome.reason });
      got ??= outcome.got;
    } catch (error) {
      if (!(error instanceof DownloadError || error instanceof SpoolFull)) throw error;
      attempts.push({ url, reason: error.message });
    }
  }
  return { reply: { ok: false, attempts, ...(got === undefined ? {} : { got }) } };
}

const job = JSON.parse(await readLine(process.stdin)) as FetchJob;
const { reply, contents } = await fetch(job);
function* said(): Generator<Buffer> {
  yield Buffer.from(`${JSON.stringify(reply)}\n`);
  if (contents) yield* contents.pieces();
}
await pipeline(Readable.from(said(), { objectMode: false }), process.stdout);
process.exit(0);
