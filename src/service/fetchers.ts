/**
 * Starts fetchers. Under systemd the service has no network: a socket of `nix-broker-fetch.socket` starts one there, in a
 * unit of its own. Elsewhere it is a child process, which Node lets read and write nothing but a temporary folder.
 */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { FetchJob } from "../contract/fetch-job.ts";
import { connectStream, pairStream } from "../host/socket.ts";
import type { Fetcher, Fetchers } from "../sandbox/fetchers.ts";
import type { Transport } from "../sandbox/upstream/connection.ts";

/** Each takes about 60 MiB. */
const AT_ONCE = 8;
/** Certificates and time zone are the machine's; nothing else of the environment is passed on. */
const PASSED_ON = ["TZ", "NODE_EXTRA_CA_CERTS"] as const;
const CERTIFICATES = ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE"] as const;

export interface FetchersOptions {
  readonly privateHosts: readonly string[];
  /** The socket behind which fetchers are started; undefined for child processes. */
  readonly socket: string | undefined;
}

/** The names of the variables that the units set. */
export const FETCH_SOCKET = "NIX_BROKER_FETCH_SOCKET";

export class FetcherStarter implements Fetchers {
  readonly privateHosts: readonly string[];
  private readonly socket: string | undefined;
  private running = 0;
  /** By owner, the first to come first; each owner has its turn. */
  private readonly waiting = new Map<object, (() => void)[]>();

  constructor({ privateHosts, socket }: FetchersOptions) {
    this.privateHosts = privateHosts;
    this.socket = socket;
  }

  async start(job: FetchJob, owner: object): Promise<Fetcher> {
    await this.turn(owner);
    try {
      const [transport, cleanUp] = await (this.socket === undefined ? child() : behind(this.socket));
      await transport.write(Buffer.from(`${JSON.stringify(job)}\n`));
      let ended = false;
      const end = (): void => {
        if (ended) return;
        ended = true;
        transport.destroy();
        cleanUp();
        this.leave();
      };
      return { transport, end };
    } catch (error) {
      this.leave();
      throw error;
    }
  }

  private async turn(owner: object): Promise<void> {
    if (this.running < AT_ONCE) {
      this.running++;
      return;
    }
    await new Promise<void>((resolve) => {
      const queue = this.waiting.get(owner) ?? [];
      queue.push(resolve);
      this.waiting.set(owner, queue);
    });
  }

  /** Whoever is next takes the place. */
  private leave(): void {
    const [next] = this.waiting;
    if (!next) {
      this.running--;
      return;
    }
    const [owner, queue] = next;
    this.waiting.delete(owner);
    const resolve = queue.shift();
    if (queue.length > 0) this.waiting.set(owner, queue);
    resolve?.();
  }
}

async function behind(socket: string): Promise<[Transport, () => void]> {
  return [await connectStream(socket), () => undefined];
}

async function child(): Promise<[Transport, () => void]> {
  const temporary = mkdtempSync(join(tmpdir(), "nix-broker-fetch-"));
  const { file, folder: code } = program();
  const env: NodeJS.ProcessEnv = { TMPDIR: temporary };
  for (const name of PASSED_ON) if (process.env[name] !== undefined) env[name] = process.env[name];
  for (const name of CERTIFICATES) env.NODE_EXTRA_CA_CERTS ??= process.env[name];
  const started = spawn(
    process.execPath,
    [
      "--permission",
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
