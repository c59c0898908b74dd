/**
 * A machine with a Debian system of its own and a lab daemon's /nix, for programs that make other sandboxes: in mount, pid,
 * network, cgroup, host name and IPC namespaces. It has the daemon's users, and `nix-broker` is installed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe } from "vitest";
import { type CommandOptions, type CommandResult, runCommand, shellQuote } from "../../lab/command.ts";
import { type Bind, type Daemon, LabError, lab, type NixVersion } from "../../lab/lab.ts";
import { program } from "../../lab/program.ts";
import { makeDevices } from "../devices.ts";
import { projectRoot } from "./fixture.ts";

const packages = ["openssh-server", "openssh-client", "podman", "crun", "uidmap", "systemd-container"];

/** The folder of the machine's system; undefined where Debian's packages cannot be had. */
const system = await lab.system("sandboxes", packages).catch((error: unknown) => {
  if (!(error instanceof LabError)) throw error;
  process.stderr.write(`Tests of sshd, podman and systemd-nspawn are skipped: ${error.message}\n`);
  return undefined;
});

/** Describes tests with a machine. Where Debian's packages cannot be had they are skipped, with the reason on stderr. */
export function describeWithMachine(
  name: string,
  versions: readonly NixVersion[],
  tests: (version: NixVersion) => void,
): void {
  const title = system === undefined ? `${name} (skipped: no packages of Debian)` : name;
  describe.skipIf(system === undefined).each(versions)(`${title} [daemon %s]`, tests);
}

/** Folders with file systems in memory: an overlay cannot be on one, and the machine's root is one. */
const memoryFolders = [
  "run",
  "srv",
  "tmp",
  "var/tmp",
  "var/lib/containers",
  "home/alice/.local/share/containers",
  "run/user/alice",
];

export class Machine {
  private readonly process: ChildProcess;
  private readonly folder: string;
  private readonly daemon: Daemon;
  private pid = 0;

  private constructor(process: ChildProcess, folder: string, daemon: Daemon) {
    this.process = process;
    this.folder = folder;
    this.daemon = daemon;
  }

  static async start(daemon: Daemon, binds: readonly Bind[] = []): Promise<Machine> {
    const folder = mkdtempSync(join(tmpdir(), "nix-broker-machine-"));
    const unshare = ["--mount", "--pid", "--fork", "--net", "--cgroup", "--uts", "--ipc", "--kill-child"];
    const child = spawn("unshare", [...unshare, "sh", "-c", startScript(folder, daemon, binds)]);
    const machine = new Machine(child, folder, daemon);
    try {
      await machine.setUp();
      return machine;
    } catch (error) {
      machine.stop();
      throw error;
    }
  }

  private async setUp(): Promise<void> {
    let errors = "";
    this.process.stderr?.on("data", (text: Buffer) => {
      errors += text.toString();
    });
    await new Promise<void>((resolve, reject) => {
      this.process.stdout?.once("data", () => resolve());
      this.process.once("exit", () => reject(new Error(`the machine did not start:\n${errors}`)));
    });
    const { pid } = this.process;
    this.pid = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim());
    for (const name of ["passwd", "group", "hosts"]) {
      copyFileSync(this.daemon.hostPath(`/etc/${name}`), this.path(`/etc/${name}`));
    }
    await this.must("chown", "-R", "alice:alice", "/home/alice", "/run/user/alice");
  }

  /** Runs a command to its end, as root or another user, with the daemon's version of Nix. */
  run(
    argv: readonly string[],
    { user = "root", env, ...options }: CommandOptions & { readonly user?: string } = {},
  ): Promise<CommandResult> {
    const environment = {
      PATH: `${lab.clientFolder(this.daemon.version)}:/usr/local/bin:/usr/sbin:/usr/bin`,
      HOME: user === "root" ? "/root" : `/home/${user}`,
      USER: user,
      ...env,
    };
    const variables = Object.entries(environment).map(([key, value]) => `${key}=${value}`);
    return runCommand(
      [
        ...["nsenter", `--target=${this.pid}`, "--all", "--root"],
        ...["/usr/bin/setpriv", `--reuid=${user}`, `--regid=${user}`, "--clear-groups"],
        ...["/usr/bin/env", "-i", "-C", "/", ...variables, ...argv],
      ],
      options,
    );
  }

  /** Runs a command that has to succeed, as root, and gives what it printed. */
  async must(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(argv);
    if (code !== 0) throw new Error(`${argv.join(" ")} ended with ${code}:\n${stderr}`);
    return stdout;
  }

  /**
   * Makes a folder with a system for containers, with the daemon's version of Nix.
   *
   * @param owner a user, or a number, who is root in these containers
   */
  async container(owner: string): Promise<string> {
    const layers = `/srv/layers-${owner}`;
    const folder = `/srv/${owner}`;
    const script = `
mkdir -p ${layers}/upper ${layers}/work ${folder}
mount -t overlay overlay -o lowerdir=/lab/${this.daemon.version}/root,upperdir=${layers}/upper,workdir=${layers}/work ${folder}
cd ${folder}
mkdir -p nix/store nix/var/nix/daemon-socket tmp
chmod 1777 tmp
cp /etc/passwd /etc/group etc
chown ${owner} . && chown -R ${owner} etc root run nix`;
    await this.must("sh", "-euc", script);
    return folder;
  }

  /** Where this process sees a path of the machine. */
  path(inside: string): string {
    return `/proc/${this.pid}/root${inside}`;
  }

  stop(): void {
    // The first process of a pid namespace takes everything in it along.
    if (this.pid > 0) process.kill(this.pid, "SIGKILL");
    this.process.kill("SIGKILL");
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function startScript(folder: string, daemon: Daemon, binds: readonly Bind[]): string {
  if (system === undefined) throw new LabError("There is no system for a machine.");
  const root = join(folder, "root");
  const memory = join(folder, "memory");
  for (const path of [root, memory]) mkdirSync(path);
  const quoted = shellQuote(memory);
  const at = (path: string): string => shellQuote(join(root, path));
  const bind = ({ source, target }: Bind): string =>
    `mkdir -p ${at(target)}; mount --bind ${shellQuote(source)} ${at(target)}`;
  const node = "usr/local/bin/node";
  return [
    "set -e",
    "mount --make-rprivate /",
    `mount -t tmpfs tmpfs ${quoted}`,
    `mkdir ${quoted}/upper ${quoted}/work`,
    `mount -t overlay overlay -o lowerdir=${shellQuote(system)},upperdir=${quoted}/upper,workdir=${quoted}/work ${at("/")}`,
    ...makeDevices(join(root, "dev")),
    `mount -t proc proc ${at("proc")}`,
    `mount -t sysfs sysfs ${at("sys")}`,
    `mount -t cgroup2 cgroup2 ${at("sys/fs/cgroup")}`,
    ...memoryFolders.map((name) => `mkdir -p ${at(name)}; mount -t tmpfs tmpfs ${at(name)}`),
    `chmod 1777 ${at("tmp")} ${at("var/tmp")}`,
    bind({ source: daemon.root, target: "/nix" }),
    bind({ source: lab.cacheFolder, target: "/lab" }),
    bind({ source: projectRoot, target: projectRoot }),
    ...binds.map(bind),
    `mkdir -p ${at(dirname(node))}; touch ${at(node)}; mount --bind ${shellQuote(process.execPath)} ${at(node)}`,
    `ln -s ${shellQuote(program.wrapper)} ${at("usr/local/bin/nix-broker")}`,
    `tr -d - < /proc/sys/kernel/random/uuid > ${at("etc/machine-id")}`,
    `mkdir ${at("old")}`,
    `cd ${at("/")}`,
    "pivot_root . old",
    // Its input is a pipe from the test's process: the machine ends with it.
    `exec chroot . /bin/sh -c 'umount -l /old; ip link set lo up; echo ready; exec cat'`,
  ].join("\n");
}
