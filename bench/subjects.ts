/** What is compared: the bare daemon, the broker in front of it, and socat as the dumbest possible proxy. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Daemon, LabError, lab, type NixVersion } from "../lab/lab.ts";
import { until, watchPart, wordsOf } from "../lab/parts.ts";
import { program } from "../lab/program.ts";

const ended = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.kill("SIGTERM");
  await gone;
};

/** A broker beside a daemon, as its own user, from the bundle. */
export class BenchBroker {
  readonly process: ChildProcess;
  /** On the machine. */
  readonly sockets: readonly string[];
  /** The first of them, beside the daemon. */
  readonly socketInside: string;

  private constructor(child: ChildProcess, sockets: readonly string[], socketInside: string) {
    this.process = child;
    this.sockets = sockets;
    this.socketInside = socketInside;
  }

  /** @param view what each of the sockets has in its view: store paths, or the whole store */
  static async start(
    daemon: Daemon,
    options: { name: string; sockets: number; view: readonly string[] | "store" },
  ): Promise<BenchBroker> {
    const folder = `/var/lib/nix-broker/${options.name}`;
    const paths = Array.from({ length: options.sockets }, (_, i) => `${folder}/s${i}/socket`);
    const listen = paths.map(
      (path) =>
        `[[listen]]\npath = "${path}"\nallow_uids = ["*"]\nview = ${options.view.length > 0 ? JSON.stringify(options.view) : '"empty"'}\n`,
    );
    const config = `[runtime]\ndir = "${folder}/run"\nstate_dir = "${folder}/state"\n${listen.join("")}
[limits]\nbody_bytes = "unlimited"\nbytes_added = "unlimited"\nrequest_deadline = "1 h"\naudit_rows = "unlimited"\n`;
    const folders = [`${folder}/run`, `${folder}/state`, ...paths.map((path) => dirname(path))].join(" ");
    const made = await daemon.run(
      ["sh", "-c", `mkdir -p ${folders} && cat > ${folder}/config.toml && chown -R nix-broker ${folder}`],
      { input: config },
    );
    if (made.code !== 0) throw new LabError(`The broker's folder cannot be made: ${made.stderr}`);
    const child = daemon.spawn([program.wrapper, "serve", "--config", `${folder}/config.toml`], {
      user: "nix-broker",
      env: { NIX_BROKER_NODE: process.execPath },
    });
    watchPart(daemon, "the service", child, wordsOf(child));
    const sockets = paths.map((path) => daemon.hostPath(path));
    await until(() => sockets.every((socket) => existsSync(socket)));
    return new BenchBroker(child, sockets, paths[0] ?? "");
  }

  /** Resident memory, in bytes. */
  get resident(): number {
    return this.memory("VmRSS");
  }

  /** The peak of resident memory since `forgetPeak`, in bytes. */
  get peak(): number {
    return this.memory("VmHWM");
  }

  forgetPeak(): void {
    writeFileSync(`/proc/${this.process.pid}/clear_refs`, "5");
  }

  private memory(field: "VmRSS" | "VmHWM"): number {
    const status = readFileSync(`/proc/${this.process.pid}/status`, "utf8");
    return Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1] ?? Number.NaN) * 1024;
  }

  stop(): Promise<void> {
    return ended(this.process);
  }
}

export const subjectNames = ["ours", "direct", "socat"] as const;
export type SubjectName = (typeof subjectNames)[number];

/** Paths of the store to be read and asked about. */
export interface StoreContents {
  /** One file of five bytes. */
  readonly tiny: string;
  /** Another one. */
  readonly other: string;
  /** One file of 1 GiB. */
  readonly large: string;
  /** 20 000 small files. */
  readonly manyFiles: string;
}

export interface Subjects {
  readonly version: string;
  readonly daemon: Daemon;
  readonly broker: BenchBroker;
  readonly contents: StoreContents;
  /** The Unix sockets of all three, on the machine. */
  readonly sockets: Readonly<Record<SubjectName, string>>;
  stop(): Promise<void>;
}

const fill = `set -e
d=$(mktemp -d); cd $d
echo tiny > tiny
echo more > other
head -c 1073741824 /dev/urandom > large
mkdir many-files; cd many-files
for i in $(seq 20000); do echo "file number $i" > f$i; done; cd ..
for f in tiny other large many-files; do nix-store --add $f; done
cd /; rm -r $d`;

/** @param memory keeps the store on tmpfs; else it is on disk */
export const startSubjects = async (version: NixVersion, memory: boolean): Promise<Subjects> => {
  const daemon = await lab.start(version, { memory });
  try {
    const filled = await daemon.run(["bash", "-c", fill], { timeoutMs: 300_000 });
    const [tiny, other, large, manyFiles] = filled.stdout.trim().split("\n");
    if (tiny === undefined || other === undefined || large === undefined || manyFiles === undefined)
      throw new LabError(`The store cannot be filled: ${filled.stderr}`);
    const contents = { tiny, other, large, manyFiles };
    const broker = await BenchBroker.start(daemon, {
      name: "bench",
      sockets: 1,
      view: Object.values(contents),
    });
    const folder = daemon.hostPath("/tmp/socat");
    mkdirSync(folder, { recursive: true });
    const socket = join(folder, "socket");
    rmSync(socket, { force: true });
    const socat = spawn(
      await lab.tool("socat"),
      [`UNIX-LISTEN:${socket},fork,backlog=128`, `UNIX-CONNECT:${daemon.socket}`],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    watchPart(daemon, "socat", socat, wordsOf(socat));
    await until(() => existsSync(socket));
    return {
      version: daemon.fullVersion,
      daemon,
      broker,
      contents,
      sockets: { ours: broker.sockets[0] ?? "", direct: daemon.socket, socat: socket },
      async stop() {
        await broker.stop();
        await ended(socat);
        await daemon.stop();
      },
    };
  } catch (error) {
    await daemon.stop();
    throw error;
  }
};
