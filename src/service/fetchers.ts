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

/** Each takes about 60 MiB. */
const AT_ONCE = 8;
/** Of one owner: a server can make a download last as long as the request may. */
const AT_ONCE_OF_ONE = 4;
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

interface Owner {
  running: number;
  /** The first to come first. */
  readonly waiting: (() => void)[];
}

/** The variable by which the unit names the socket. */
export const FETCH_SOCKET = "NIX_BROKER_FETCH_SOCKET";

export class FetcherStarter implements Fetchers {
  readonly privateHosts: readonly string[];
  private readonly socket: string | undefined;
  private running = 0;
  /** Those that have any, or wait for some; whose turn is next comes first. */
  private readonly owners = new Map<object, Owner>();

  constructor({ privateHosts, socket }: FetchersOptions) {
    this.privateHosts = privateHosts;
    this.socket = socket;
  }

  async start(job: FetchJob, owner: object, unwanted: AbortSignal): Promise<Fetcher> {
    await this.turn(owner, unwanted);
    const undo = [() => this.leave(owner)];
    const end = (): void => {
      for (const step of undo.splice(0).reverse()) step();
    };
    try {
      const [transport, cleanUp] = await (this.socket === undefined ? child() : behind(this.socket));
      undo.push(cleanUp, () => transport.destroy());
      await transport.write(Buffer.from(`${JSON.stringify(job)}\n`));
      unwanted.throwIfAborted();
      return { transport, end };
    } catch (error) {
      end();
      throw error;
    }
  }

  private async turn(owner: object, unwanted: AbortSignal): Promise<void> {
    unwanted.throwIfAborted();
    const { waiting } = this.owner(owner);
    await new Promise<void>((resolve, reject) => {
      const give = (): void => {
        unwanted.removeEventListener("abort", giveUp);
        resolve();
      };
      const giveUp = (): void => {
        waiting.splice(waiting.indexOf(give), 1);
        this.forgetIdle(owner);
        reject(unwanted.reason);
      };
      unwanted.addEventListener("abort", giveUp);
      waiting.push(give);
      this.givePlaces();
    });
  }

  private leave(owner: object): void {
    this.running--;
    this.owner(owner).running--;
    this.forgetIdle(owner);
    this.givePlaces();
  }

  private givePlaces(): void {
    while (this.running < AT_ONCE) {
      const next = [...this.owners].find(
        ([, { running, waiting }]) => running < AT_ONCE_OF_ONE && waiting.length > 0,
      );
      if (!next) return;
      const [owner, state] = next;
      this.owners.delete(owner);
      this.owners.set(owner, state);
      this.running++;
      state.running++;
      state.waiting.shift()?.();
    }
  }

  private owner(owner: object): Owner {
    const known = this.owners.get(owner) ?? { running: 0, waiting: [] };
    this.owners.set(owner, known);
    return known;
  }

  private forgetIdle(owner: object): void {
    const { running, waiting } = this.owner(owner);
    if (running === 0 && waiting.length === 0) this.owners.delete(owner);
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
    rmSync(temporary, { recursive: true, force: true });
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

/** The program, and the folder of all that it loads: in the sources, or in the bundle, whose pieces are in a folder of their own. */
function program(): { file: string; folder: string } {
  const bundled = import.meta.filename.endsWith(".js");
  const folder = join(import.meta.dirname, bundled ? ".." : "../..");
  return { file: join(folder, bundled ? "fetcher.js" : "src/fetcher/main.ts"), folder };
}
