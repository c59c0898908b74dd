/**
 * A real systemd as the first process of its own pid, mount and cgroup namespaces, with the units of systemd/ and, as its
 * /nix, that of a lab daemon. Its system is this machine's, or one out of Debian packages where this machine has no systemd.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type CommandResult, runCommand, shellQuote } from "../../lab/command.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { makeDevices } from "../devices.ts";

const projectRoot = join(import.meta.dirname, "../..");
export const unitFolder = join(projectRoot, "systemd");
export const units = [
  "nix-broker.service",
  "nix-broker.socket",
  "nix-broker-linker.service",
  "nix-broker-fetch.socket",
  "nix-broker-fetch@.service",
] as const;

/** The folder that has systemd's /usr. */
async function systemRoot(): Promise<string> {
  const program = await lab.tool("systemd-analyze", "systemd");
  return program.startsWith(lab.cacheFolder) ? join(dirname(dirname(program)), "root") : "/";
}

/** Where the project is there: not below /tmp, /var/tmp or /home, which the units hide. */
const installed = "/opt/checkout";

/** A nix-broker command that runs the sources, as the package's own wrapper does with the bundle. */
const wrapper = `#!/bin/sh
case $1 in
linker) exec node ${installed}/src/root/main.ts "$@" ;;
fetcher) exec node --permission --allow-fs-read=${installed} --allow-fs-read="$TMPDIR" --allow-fs-write="$TMPDIR" ${installed}/src/fetcher/main.ts ;;
esac
exec node --disable-warning=ExperimentalWarning ${installed}/src/cli/main.ts "$@"
`;

export class Systemd {
  private process: ChildProcess;
  private readonly folder: string;
  private readonly script: string;
  private pid = 0;
  private written = "";

  /** @param script starts it from what is in the folder */
  private constructor(folder: string, script: string) {
    this.folder = folder;
    this.script = script;
    this.process = this.turnOn();
  }

  private turnOn(): ChildProcess {
    const unshare = ["--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--kill-child"];
    const child = spawn("unshare", [...unshare, "sh", "-c", this.script], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (text: Buffer) => {
        this.written += text.toString();
      });
    return child;
  }

  /**
   * @param config of nix-broker, which is installed with its units; without it, the system has Nix alone
   * @param dist the built programs, as the project's dist/; the project itself is at /opt/checkout
   */
  static async start(daemon: Daemon, config?: string, dist?: string): Promise<Systemd> {
    const system = await systemRoot();
    return Systemd.boot((folder) => {
      layOut(folder, daemon, config);
      return startScript(folder, system, daemon, dist);
    });
  }

  /** @param script given a folder of its own: a shell script that ends in {@link enterSystem} */
  static async boot(script: (folder: string) => string): Promise<Systemd> {
    const folder = mkdtempSync(join(tmpdir(), "nix-broker-systemd-"));
    const systemd = new Systemd(folder, script(folder));
    await systemd.untilReady();
    return systemd;
  }

  /** As when the power fails and comes back: what is on its disk is there, /run and /tmp are empty. */
  async reboot(): Promise<void> {
    const gone = once(this.process, "exit");
    this.kill();
    await gone;
    this.pid = 0;
    this.process = this.turnOn();
    await this.untilReady();
  }

  private async untilReady(): Promise<void> {
    const { pid } = this.process;
    for (;;) {
      if (this.process.exitCode !== null) throw new Error(`systemd ended at once:\n${this.written}`);
      this.pid = Number(readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ")[0]);
      const answers = this.pid > 0 && existsSync(`/proc/${this.pid}/root/run/systemd/private`);
      if (answers && (await this.run("systemctl", "is-active", "basic.target")).code === 0) return;
      await sleep(20);
    }
  }

  /** Runs a command on the system, as root. */
  run(...argv: string[]): Promise<CommandResult> {
    return runCommand(this.commandLine(...argv));
  }

  /** The command line that runs a command on the system. */
  commandLine(...argv: string[]): string[] {
    const enter = ["nsenter", `--target=${this.pid}`, "--mount", "--pid", "--root", "--cgroup", "--wd=/"];
    return [...enter, ...argv];
  }

  /** Where this process sees a path of the system. */
  path(inside: string): string {
    return `/proc/${this.pid}/root${inside}`;
  }

  /** The value of a property of a unit. */
  async show(unit: string, property: string): Promise<string> {
    return (await this.run("systemctl", "show", "--value", "-p", property, unit)).stdout.trim();
  }

  /** What systemd and the units wrote. */
  async log(): Promise<string> {
    const journal = await this.run("journalctl", "--no-pager", "-o", "cat");
    return `${this.written}${journal.stdout}`;
  }

  stop(): void {
    this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }

  private kill(): void {
    // The first process of a pid namespace takes everything in it along.
    if (this.pid > 0) process.kill(this.pid, "SIGKILL");
    this.process.kill("SIGKILL");
  }
}

function layOut(folder: string, daemon: Daemon, config: string | undefined): void {
  const root = join(folder, "root");
  for (const name of ["etc/systemd/system", "etc/nix-broker", "var/lib", "var/log", "root", "local/bin"])
    mkdirSync(join(name === "local/bin" ? folder : root, name), { recursive: true });
  for (const name of ["passwd", "group", "nsswitch.conf"])
    if (existsSync(daemon.hostPath(`/etc/${name}`)))
      cpSync(daemon.hostPath(`/etc/${name}`), join(root, "etc", name));
  writeFileSync(join(root, "etc/machine-id"), `${"a".repeat(32)}\n`);
  if (config === undefined) layOutNix(root, daemon);
  else layOutInstalled(folder, config);
}

function layOutInstalled(folder: string, config: string): void {
  const root = join(folder, "root");
  for (const unit of units) cpSync(join(unitFolder, unit), join(root, "etc/systemd/system", unit));
  mkdirSync(join(root, "etc/tmpfiles.d"));
  cpSync(join(unitFolder, "tmpfiles.conf"), join(root, "etc/tmpfiles.d/nix-broker.conf"));
  writeFileSync(join(root, "etc/nix-broker/config.toml"), config);
  writeFileSync(join(folder, "local/bin/nix-broker"), wrapper, { mode: 0o755 });
}

/** A multi-user Nix, as a distribution's package has it; nothing of nix-broker, not even its user. */
function layOutNix(root: string, daemon: Daemon): void {
  for (const name of ["passwd", "group"]) {
    const file = join(root, "etc", name);
    const lines = readFileSync(file, "utf8").split("\n");
    writeFileSync(file, lines.filter((line) => !line.startsWith("nix-broker:")).join("\n"));
  }
  rmSync(join(root, "etc/nix-broker"), { recursive: true });
  mkdirSync(join(root, "etc/nix"));
  cpSync(daemon.hostPath("/etc/nix/nix.conf"), join(root, "etc/nix/nix.conf"));
  const shared = ["/nix", "/lab", "/etc", "/run", "/tmp", "-/usr/local/lib/nix-broker"];
  writeFileSync(
    join(root, "etc/systemd/system/nix-daemon.service"),
    // The daemon has the libraries of its own version's Debian.
    `[Service]
ExecStart=/usr/bin/nix-daemon --daemon
RootDirectory=/nix-system
MountAPIVFS=yes
BindPaths=${shared.join(" ")}
KillMode=process
`,
  );
  // Which listens while the daemon is restarted: its next client waits for it.
  writeFileSync(
    join(root, "etc/systemd/system/nix-daemon.socket"),
    "[Socket]\nListenStream=/nix/var/nix/daemon-socket/socket\n",
  );
}

function startScript(folder: string, system: string, daemon: Daemon, dist: string | undefined): string {
  const root = join(folder, "root");
  const at = (path: string): string => shellQuote(join(root, path));
  const lines = ["set -e", "mount --make-rprivate /", `mount --bind ${at("/")} ${at("/")}`];
  for (const name of ["proc", "sys", "run", "tmp", "dev", "nix", "usr", "old"]) mkdirSync(join(root, name));
  for (const name of ["bin", "sbin", "lib", "lib64"]) symlinkSync(`usr/${name}`, join(root, name));
  lines.push(
    `mount --bind ${shellQuote(join(system, "usr"))} ${at("usr")}`,
    `mount --bind ${shellQuote(join(folder, "local"))} ${at("usr/local")}`,
    `mount --bind ${shellQuote(daemon.root)} ${at("nix")}`,
    `mkdir -p ${at(installed)}`,
    `mount --bind ${shellQuote(projectRoot)} ${at(installed)}`,
    ...(dist === undefined ? [] : [`mount --bind ${shellQuote(dist)} ${at(`${installed}/dist`)}`]),
    `mkdir -p ${at("lab")} ${at("nix-system")} ${shellQuote(join(folder, "upper"))} ${shellQuote(join(folder, "work"))}`,
    `mount -t overlay overlay -o lowerdir=${shellQuote(join(lab.cacheFolder, daemon.version, "root"))},upperdir=${shellQuote(join(folder, "upper"))},workdir=${shellQuote(join(folder, "work"))} ${at("nix-system")}`,
    `mkdir -p ${at("nix-system/nix")} ${at("nix-system/lab")} ${at("nix-system/etc")} ${at("nix-system/run")} ${at("nix-system/tmp")} ${at("nix-system/usr/local/lib/nix-broker")} ${at("nix-system/proc")} ${at("nix-system/dev")} ${at("nix-system/sys")}`,
    `mount --bind ${shellQuote(lab.cacheFolder)} ${at("lab")}`,
    `touch ${at("usr/local/bin/node")}`,
    `mount --bind ${shellQuote(process.execPath)} ${at("usr/local/bin/node")}`,
    ...enterSystem(root, "basic.target"),
  );
  return lines.join("\n");
}

/** The last lines of a script that starts a system: mounts what the kernel provides, and becomes systemd. */
export function enterSystem(root: string, target: string): string[] {
  const at = (path: string): string => shellQuote(join(root, path));
  return [
    `mount -t tmpfs tmpfs ${at("run")}`,
    `mount -t tmpfs tmpfs ${at("tmp")}`,
    `mount -t proc proc ${at("proc")}`,
    `mount -t sysfs sysfs ${at("sys")}`,
    `mount -t cgroup2 cgroup2 ${at("sys/fs/cgroup")}`,
    ...makeDevices(join(root, "dev")),
    // Shared at the end, as container managers do: else credentials, which are mounts, do not reach the units.
    `cd ${at("/")}`,
    "pivot_root . old",
    `exec chroot . /bin/sh -c 'umount -l /old; mount --make-rshared /; mkdir -p /run/systemd/system; exec env -i container=nix-broker-test PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --system --unit=${target} --log-target=console --show-status=0'`,
  ];
}
