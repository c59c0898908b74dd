/**
 * Records the corpus anew: real clients of every version talk to real daemons of every version through a pipe
 * that writes down what passes. Run as root: node test/corpus/record.ts
 */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { type Daemon, lab, type NixVersion, sandboxScript } from "../../lab/lab.ts";
import { projectRoot } from "../../lab/versions.ts";
import { commands, prepare } from "./commands.ts";
import { type IndexEntry, indexFile, joinSides, type Piece, type Side, writeRecording } from "./recording.ts";
import { replay } from "./replay.ts";

/** Longer connections say no more than short ones. */
const LONGEST = 24 * 1024;
/** A fixed place, for its name is in what clients send. */
const WORK = "/tmp/corpus";

const FEATURES = "experimental-features = nix-command flakes ca-derivations";
const CLIENT_SETTINGS = `${FEATURES}\nsubstituters =`;

/** A pipe between a socket of its own and a daemon's, and what went through it since the last `take`. */
class RecordingPipe {
  readonly socket: string;
  private readonly server: Server;
  private connections: Piece[][] = [];

  constructor(folder: string, daemon: string) {
    this.socket = join(folder, "socket");
    this.server = createServer({ allowHalfOpen: true }, (client) => {
      const pieces: Piece[] = [];
      this.connections.push(pieces);
      const upstream = connect({ path: daemon, allowHalfOpen: true });
      forward(client, upstream, "client", pieces);
      forward(upstream, client, "daemon", pieces);
    });
  }

  async open(): Promise<void> {
    await new Promise<void>((resolve) => this.server.listen(this.socket, resolve));
    chmodSync(this.socket, 0o666);
  }

  take(): Piece[][] {
    const taken = this.connections;
    this.connections = [];
    return taken;
  }

  close(): void {
    this.server.close();
  }
}

function forward(from: Socket, to: Socket, side: Side, pieces: Piece[]): void {
  from.on("data", (bytes: Buffer) => {
    pieces.push({ from: side, bytes });
    to.write(bytes);
  });
  from.on("end", () => to.end());
  from.on("error", () => to.destroy());
}

/** Nothing of this machine may be in the corpus. */
function checkClean(name: string, bytes: Buffer): void {
  const found = new RegExp(`${projectRoot}|nix-broker-lab|\\b${hostname()}\\b`).exec(
    bytes.toString("latin1"),
  );
  if (found) throw new Error(`${name} contains '${found[0]}'; record it without`);
}

const index: Record<string, IndexEntry> = {};

async function recordPair(client: NixVersion, daemon: Daemon, pipe: RecordingPipe): Promise<number> {
  let size = 0;
  const seen = new Set<string>();
  for (const { name, argv, pairs } of commands) {
    if (!pairs(client, daemon.version)) continue;
    pipe.take();
    const result = await lab.client(client, argv, {
      socket: pipe.socket,
      store: `${daemon.root}/store`,
      cwd: WORK,
      env: { HOME: WORK, NIX_CONFIG: CLIENT_SETTINGS },
    });
    if (process.env.VERBOSE)
      console.log(client, daemon.version, name, result.code, result.stderr.slice(-300));
    for (const [i, pieces] of pipe.take().entries()) {
      const bytes = writeRecording(pieces);
      if (bytes.length > LONGEST) continue;
      const file = `${client}-${daemon.version}-${name}-${i + 1}`;
      checkClean(file, bytes);
      const { client: sent, daemon: answered } = joinSides(pieces);
      const { clientGreeting, exchanges } = await replay(sent, answered);
      const known = seen.size;
      for (const { operation, failed, messages } of exchanges)
        seen.add(`${operation} ${failed} ${messages > 0}`);
      // A connection with nothing that an earlier one of the pair had not shows nothing.
      if (seen.size === known) continue;
      writeFileSync(join(import.meta.dirname, `${file}.bin`), bytes);
      index[file] = { minor: clientGreeting.minor, operations: exchanges.map(({ operation }) => operation) };
      size += bytes.length;
    }
  }
  return size;
}

async function main(): Promise<void> {
  await lab.fetch();
  for (const file of readdirSync(import.meta.dirname))
    if (file.endsWith(".bin")) rmSync(join(import.meta.dirname, file));
  for (const version of lab.versions) {
    const daemon = await lab.start(version, {
      ...(version !== "2.3" && { config: FEATURES }),
    });
    const folder = mkdtempSync("/tmp/corpus-pipe-");
    chmodSync(folder, 0o755);
    const pipe = new RecordingPipe(folder, daemon.socket);
    await pipe.open();
    try {
      for (const client of lab.versions) {
        rmSync(WORK, { recursive: true, force: true });
        mkdirSync(WORK);
        prepare(WORK, sandboxScript, client, pipe.socket);
        const size = await recordPair(client, daemon, pipe);
        console.log(`${client} to ${version}: ${size} bytes`);
      }
    } finally {
      pipe.close();
      await daemon.stop();
      rmSync(folder, { recursive: true });
      rmSync(WORK, { recursive: true, force: true });
    }
  }
  const lines = Object.entries(index).map(
    ([name, entry]) => `  ${JSON.stringify(name)}: ${JSON.stringify(entry)}`,
  );
  writeFileSync(indexFile, `{\n${lines.join(",\n")}\n}\n`);
}

await main();
