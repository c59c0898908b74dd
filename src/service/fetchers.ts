/**
 * Starts fetchers. Under systemd the service has no network: a socket of `nix-broker-fetch.socket` starts one there, in a
 * unit of its own. Elsewhere it is a child process, which Node lets read and write nothing but a temporary folder.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FETCHER_FOLDER, type FetchJob } from "../contract/fetch-job.ts";
import { connectStream, pairStream } from "../host/socket.ts";
import type { Fetcher, Fetchers } from "../sandbox/fetchers.ts";
import type { Transport } from "../sandbox/upstream/connection.ts";
import { FetchPlaces } from "./fetch-places.ts";

/** Of what it holds besides buffers: the names of an archive's entries. */
const MOST_MEMORY_MB = 512;
/** Certificates and time zone are the machine's; nothing else of the environment is passed on. */
const PASSED_ON = ["TZ", "NODE_EXTRA_CA_CERTS"] as const;
const CERTIFICATES = ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"] as const;

export interface FetchersOptions {
  readonly privateHosts: readonly string[];
  /** The socket behind which fetchers are started; undefined for child processes. */
  readonly socket: string | undefined;
}

/** The variable by which the unit names the socket. */
export const FETCH_SOCKET = "NIX_BROKER_FETCH_SOCKET";

export class FetcherStarter implements Fetchers {
  readonly privateHosts: readonly string[];
  private readonly socket: string | undefined;
  private readonly places = new FetchPlaces();

  constructor({ privateHosts, socket }: FetchersOptions) {
    this.privateHosts = privateHosts;
    this.socket = socket;
  }

  async start(job: FetchJob, owner: object, unwanted: AbortSignal): Promise<Fetcher> {
    let hangUp = (): void => undefined;
    const place = await this.places.take(owner, unwanted, () => hangUp());
    const undo = [() => place.leave()];
    const end = (): void => {
      for (const step of undo.splice(0).reverse()) step();
    };
    try {
      const [transport, cleanUp] = await (this.socket === undefined ? child() : behind(this.socket));
      hangUp = () => transport.destroy();
      undo.push(cleanUp, hangUp);
      await transport.write(Buffer.from(`${JSON.stringify(job)}\n`));
      unwanted.throwIfAborted();
      return { transport, place, end };
    } catch (error) {
      end();
      throw error;
    }
  }
}

async function behind(socket: string): Promise<[Transport, () => void]> {
  return [await connectStream(socket), () => undefined];
}

async function child(): Promise<[Transport, () => void]> {
  const temporary = mkdtempSync(join(tmpdir(), FETCHER_FOLDER));
  const { file, folder: code } = program();
  const env: NodeJS.ProcessEnv = { TMPDIR: temporary };
  for (const name of PASSED_ON) if (process.env[name] !== undefined) env[name] = process.env[name];
  for (const name of CERTIFICATES) env.NODE_EXTRA_CA_CERTS ??= process.env[name];
  const started = spawn(
    process.execPath,
    [
      "--permission",
      `--max-old-space-size=${MOST_MEMORY_MB}`,
      `--allow-fs-read=${code}`,
      `--allow-fs-read=${temporary}`,
      `--allow-fs-write=${temporary}`,
      file,
    ],
    { stdio: ["pipe", "pipe", "inherit"], env, cwd: "/" },
  );
  const cleanUp = (): void => {
    started.kill("SIGKILL");
    remove(temporary);
  };
  try {
    await new Promise<void>((resolve, reject) => {
      started.once("spawn", resolve);
      started.once("error", reject);
    });
  } catch (error) {
    cleanUp();
    throw error;
  }
  // One that ends early breaks its pipes; the stream reports that.
  started.on("error", () => undefined);
  return [pairStream(started.stdout, started.stdin), cleanUp];
}

/** Never throws: what cannot be removed is left, as it is when the service is killed. What was downloaded has no name in it. */
function remove(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch {
    // The program had just been making a file there, or the disk fails.
  }
}

/** The program, and the folder of all that it loads: in the sources, or in the bundle, whose pieces are in a folder of their own. */
function program(): { file: string; folder: string } {
  const bundled = import.meta.filename.endsWith(".js");
  const folder = join(import.meta.dirname, bundled ? ".." : "../..");
  return { file: join(folder, bundled ? "fetcher.js" : "src/fetcher/main.ts"), folder };
}
