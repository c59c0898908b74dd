/** What the demo runs on: a private real daemon, and the broker beside it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type AuditRow, startBroker } from "../lab/broker.ts";
import { type Daemon, LabError, lab, type NixVersion } from "../lab/lab.ts";
import { RecursiveLab } from "../lab/recursive.ts";
import type { AttemptOutcome, Surroundings } from "./demo-builds.ts";

/** Without the linker, later clients find no .drv that they added; nor does 2.8 with a daemon of 2.3. */
function clientWithoutLinker(daemon: NixVersion): NixVersion {
  const client = daemon === "2.3" ? "2.3" : "2.8";
  if (lab.versions.includes(client)) return client;
  throw new LabError(
    `Without root the demo needs a client of Nix 2.8, which cannot be had here. Run it as root, or where Debian's packages can be had.`,
  );
}

export interface World {
  readonly daemon: Daemon;
  readonly surroundings: Surroundings;
  /** The version of Nix that the builders call. */
  readonly client: NixVersion;
  /** Whether inner results can be seen in the sandbox, and are kept as references. */
  readonly perBuild: boolean;
  /** All requests so far. */
  audit(): Promise<readonly AuditRow[]>;
  stop(): Promise<void>;
}

/** The socket's folder, beside the daemon: the fixture's first one in this process. */
const firstSocketFolder = `/var/lib/nix-broker/1-${process.pid}/s`;

/** As root: hooks, linker and service, as they are installed; a build that opts in has its own sandbox. */
async function startPerBuild(version: NixVersion): Promise<World> {
  const recursive = await RecursiveLab.start(version);
  return {
    daemon: recursive.daemon,
    surroundings: { path: "/usr/bin:/bin", environment: {}, features: ["nix-broker"] },
    client: version,
    perBuild: true,
    audit: () => recursive.audit("--kind", "request"),
    stop: () => recursive.stop(),
  };
}

/** As anybody: a daemon of this user's, and one socket that all builds see. */
async function startStatic(version: NixVersion): Promise<World> {
  const client = clientWithoutLinker(version);
  const daemon = await lab.startRootless(version, {
    sandboxPaths: [`/nix/var/nix/daemon-socket=${firstSocketFolder}`],
  });
  try {
    // Without build users there is only one user, whom the daemon trusts.
    const config = "[upstream]\nallow_trusted = true\n";
    const broker = await startBroker(daemon, { user: "alice", config });
    return {
      daemon,
      // Without build users /nix/var/nix is writable inside: Nix would open a store of its own there.
      surroundings: {
        path: `${lab.clientFolder(client)}:/usr/bin:/bin`,
        environment: { NIX_REMOTE: "daemon" },
        features: [],
      },
      client,
      perBuild: false,
      audit: () => broker.audit("--kind", "request"),
      async stop() {
        await broker.stop();
        await daemon.stop();
      },
    };
  } catch (error) {
    await daemon.stop();
    throw error;
  }
}

export function startWorld(version: NixVersion): Promise<World> {
  return process.getuid?.() === 0 ? startPerBuild(version) : startStatic(version);
}

/** The outcomes written by a cheating build or script. */
export function readOutcomes(folder: string, count: number): AttemptOutcome[] {
  return Array.from({ length: count }, (_, i) => ({
    code: Number(readFileSync(join(folder, `${i}.code`), "utf8")),
    output: readFileSync(join(folder, `${i}.output`), "utf8"),
  }));
}
