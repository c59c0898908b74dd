/** A broker beside a daemon of the lab, run as its own user, as the service is. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { OWN_FAULT } from "../src/service/own-faults.ts";
import { LabError } from "./command.ts";
import type { Daemon } from "./daemon.ts";
import { until, watchPart, wordsOf } from "./parts.ts";
import { program } from "./program.ts";
import { tallied } from "./tally.ts";

const node = process.execPath;
const { cli } = program;

export interface BrokerOptions {
  /** Lines of the configuration file, besides the folders. */
  readonly config?: string;
  readonly profile?: string;
  /** `empty`, `store`, or store paths. */
  readonly view?: string | readonly string[];
  /** Who may connect; default anyone. */
  readonly allow?: string;
  /** Lines of its table `[runtime]`, besides the folders. */
  readonly runtime?: string;
  /** Default `nix-broker`. */
  readonly user?: "nix-broker" | "alice" | "root";
  /** Where root's programs and the service meet; by default this broker's own folder. */
  readonly runtimeDir?: string;
  /** The broker's own folder, to reuse the state of an earlier one; by default a new one. */
  readonly folder?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** A running broker. Paths are as seen beside the daemon, unless they say otherwise. */
export interface TestBroker {
  readonly socket: string;
  /** The socket's folder, for `sandbox-paths` and for clients that look at the default place. */
  readonly socketFolder: string;
  /** The same socket as the machine sees it, for raw clients in the test's own process. */
  readonly hostSocket: string;
  readonly process: ChildProcess;
  /** What it wrote on standard error so far. */
  readonly log: () => string;
  /** Runs `nix-broker COMMAND…` with the broker's configuration. */
  cli(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }>;
  /** All audit records, oldest first. Written a few milliseconds after the reply. */
  audit(...filters: string[]): Promise<AuditRow[]>;
  /** Resident memory in bytes. */
  residentBytes(): number;
  /** @throws LabError when it has told of a bug of its own */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** One record as `audit --json` prints it: the fields that tests look at. */
export interface AuditRow {
  readonly kind: string;
  readonly op: string;
  readonly verdict?: "forward" | "answer" | "deny";
  readonly outer?: string;
  readonly reason?: string;
  readonly subjects?: readonly string[];
  readonly upstreamError?: string;
  readonly detail?: Record<string, unknown>;
  readonly sandbox?: string;
  readonly connection?: number;
}

let count = 0;

/** Starts a broker with one static socket and waits until it listens. @throws PartDied if it ends instead */
export async function startBroker(daemon: Daemon, options: BrokerOptions = {}): Promise<TestBroker> {
  const user = options.user ?? "nix-broker";
  const folder = options.folder ?? `/var/lib/nix-broker/${++count}-${process.pid}`;
  const socketFolder = `${folder}/s`;
  const socket = `${socketFolder}/socket`;
  const configFile = `${folder}/config.toml`;
  const config = `${options.config ?? ""}
[runtime]
dir = "${options.runtimeDir ?? `${folder}/run`}"
state_dir = "${folder}/state"
${options.runtime ?? ""}
`;
  const made = await daemon.run(
    [
      "sh",
      "-c",
      `mkdir -p ${socketFolder} ${folder}/run ${folder}/state && chmod 755 /var/lib/nix-broker ${folder} && cat > ${configFile} && chown -R ${user} ${folder}`,
    ],
    { input: config },
  );
  if (made.code !== 0) throw new Error(`cannot make the broker's folder: ${made.stderr}`);
  const views = [options.view ?? "empty"].flat().flatMap((view) => ["--view", view]);
  const hostSocket = daemon.hostPath(socket);
  // A killed broker leaves its socket behind, which must not be mistaken for the new one's.
  rmSync(hostSocket, { force: true });
  const child = daemon.spawn(
    [
      node,
      cli,
      "serve",
      "--config",
      configFile,
      "--listen",
      socket,
      "--allow",
      options.allow ?? "*",
      "--profile",
      options.profile ?? "build",
      ...views,
    ],
    { user, env: options.env ?? {} },
  );
  const log = wordsOf(child);
  const exited = once(child, "exit");
  watchPart(daemon, "the service", child, log);
  await tallied(
    "starting services",
    until(() => existsSync(hostSocket)),
  );
  const run = (...args: string[]) => daemon.run([node, cli, ...args], { user });
  return {
    socket,
    socketFolder,
    hostSocket,
    process: child,
    log,
    cli: (command, ...args) => run(command ?? "", "--config", configFile, ...args),
    async audit(...filters) {
      await new Promise((resolve) => setTimeout(resolve, 300));
      const { stdout, stderr, code } = await run(
        "audit",
        "--config",
        configFile,
        "--json",
        "--limit",
        "100000",
        ...filters,
      );
      if (code !== 0) throw new Error(`nix-broker audit: ${stderr}`);
      const rows = stdout
        .trim()
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line) as AuditRow);
      return rows;
    },
    residentBytes() {
      const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
      return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
    },
    async stop(signal = "SIGTERM") {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill(signal);
      await exited;
      if (log().includes(OWN_FAULT)) throw new LabError(`the service found a bug of its own:\n${log()}`);
    },
  };
}

/**
 * Puts a program `ssh` beside the daemon that behaves like sshd with a forced command: whatever is asked for,
 * it runs `nix-broker stdio` with its own input and output, as its caller.
 *
 * @returns the folder to put first in PATH.
 */
export async function installSsh(
  daemon: Daemon,
  { profile, user }: { profile: string; user: string },
): Promise<string> {
  const folder = `/tmp/ssh-${++count}`;
  const script = `#!/bin/bash
for argument in "$@"; do
  case "$argument" in
    -O) exit 255 ;; # no master connection runs
    -oLocalCommand=*) eval "\${argument#*=}" ;;
  esac
done
exec ${node} ${cli} stdio --config ${folder}/config.toml --profile ${profile}
`;
  const config = `[runtime]\ndir = "${folder}/run"\nstate_dir = "${folder}/state"\n`;
  const lines = [
    "set -e",
    `mkdir -p ${folder}/bin ${folder}/run ${folder}/state`,
    `cat > ${folder}/bin/ssh; chmod 755 ${folder}/bin/ssh`,
    `printf '${config}' > ${folder}/config.toml`,
    `chown -R ${user} ${folder}`,
  ];
  const made = await daemon.run(["bash", "-c", lines.join("\n")], { input: script });
  if (made.code !== 0) throw new Error(`cannot make ${folder}: ${made.stderr}`);
  return `${folder}/bin`;
}
