/** Jails beside a daemon of the lab, as alice starts them. */
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { dirname } from "node:path";
import type { CommandResult } from "../../lab/command.ts";
import { type Daemon, lab, type NixVersion } from "../../lab/lab.ts";
import { program } from "../../lab/program.ts";

/** What the machine's nix.conf says of clients. */
export function clientConfig(version: NixVersion): { config?: string } {
  return version === "2.3" ? {} : { config: "experimental-features = nix-command flakes ca-derivations" };
}

export interface JailOptions {
  readonly args?: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Whether bwrap is in PATH; default yes. */
  readonly hasBwrap?: boolean;
  readonly user?: string;
}

/** A folder with bwrap in it. */
const bin = "/var/bwrap";

export class JailLab {
  readonly daemon: Daemon;

  private constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /** Makes alice's home, and finds bwrap. */
  static async of(daemon: Daemon): Promise<JailLab> {
    const bwrap = await lab.toolInside("bwrap", "bubblewrap");
    // The lab's wrapper sets a variable of Nix's, which the jail would pass on.
    const wrapper = `mkdir -p ${bin} && sed -e '/NIX_DATA_DIR/d' -e '2s|.*|root=${dirname(bwrap)}/../root|' ${bwrap} > ${bin}/bwrap && chmod 755 ${bin}/bwrap`;
    const homes = "mkdir -p /home/alice/project && chown -R alice /home/alice";
    const made = await daemon.run(["sh", "-ec", `${wrapper}\n${homes}`]);
    if (made.code !== 0) throw new Error(made.stderr);
    return new JailLab(daemon);
  }

  private start(command: readonly string[], options: JailOptions) {
    const { args = [], cwd = "/home/alice/project", env = {}, hasBwrap = true, user = "alice" } = options;
    const argv = [process.execPath, program.cli, "jail", ...args, "--", ...command];
    const path = `${hasBwrap ? `${bin}:` : ""}/usr/bin:/bin`;
    return { argv, options: { user, cwd, env: { PATH: path, ...env } } } as const;
  }

  /** The command line with which alice starts a jail, for a program that starts it. */
  commandLine(command: readonly string[], options: JailOptions = {}): readonly string[] {
    return this.start(command, options).argv;
  }

  /** Runs a command in a jail to its end. */
  run(command: readonly string[], options: JailOptions = {}): Promise<CommandResult> {
    const { argv, options: beside } = this.start(command, options);
    return this.daemon.run(argv, beside);
  }

  /** Runs a line of bash in a jail. */
  bash(line: string, options: JailOptions = {}): Promise<CommandResult> {
    return this.run(["bash", "-c", line], options);
  }

  spawn(command: readonly string[], options: JailOptions = {}): ChildProcess {
    const { argv, options: beside } = this.start(command, options);
    return this.daemon.spawn(argv, beside);
  }

  /** A jail with a shell that is given one line after the other. */
  session(options: JailOptions = {}): JailSession {
    return new JailSession(this.spawn(["bash"], options));
  }

  /** Runs as root beside the daemon. @throws Error if it fails */
  async asRoot(line: string): Promise<string> {
    const { code, stdout, stderr } = await this.daemon.run(["sh", "-c", line]);
    if (code !== 0) throw new Error(`${line}: ${stderr}`);
    return stdout;
  }

  /** Runs as alice, outside of any jail. @throws Error if it fails */
  async asAlice(line: string, input = ""): Promise<string> {
    const { code, stdout, stderr } = await this.daemon.run(["bash", "-c", line], {
      user: "alice",
      cwd: "/home/alice/project",
      input,
    });
    if (code !== 0) throw new Error(`${line}: ${stderr}`);
    return stdout;
  }

  /** Removes what no root names, as root does, beside all jails. */
  async collectGarbage(): Promise<void> {
    await this.asRoot("nix-store --gc");
  }

  /** Whether a path is valid. */
  async isValid(path: string): Promise<boolean> {
    return (await this.daemon.run(["nix-store", "--check-validity", path])).code === 0;
  }
}

const MARK = "--- end of the line:";

export class JailSession {
  readonly process: ChildProcess;
  private text = "";

  constructor(process: ChildProcess) {
    this.process = process;
    for (const stream of [process.stdout, process.stderr])
      stream?.on("data", (data: Buffer) => {
        this.text += data.toString();
      });
  }

  /** @throws Error with what the line printed, if it fails */
  async must(line: string): Promise<string> {
    const { code, output } = await this.run(line);
    if (code !== 0) throw new Error(`${line} (${code}): ${output}`);
    return output;
  }

  /** What it prints on both streams, and its exit code. */
  async run(line: string): Promise<{ readonly code: number; readonly output: string }> {
    this.text = "";
    this.process.stdin?.write(`{ ${line}\n} 2>&1 < /dev/null; echo "${MARK} $?"\n`);
    for (;;) {
      const at = this.text.indexOf(MARK);
      if (at >= 0 && this.text.includes("\n", at))
        return { output: this.text.slice(0, at).trim(), code: Number(this.text.slice(at + MARK.length)) };
      if (this.process.exitCode !== null) throw new Error(`the jail ended: ${this.text}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Ends the shell, and so the jail. */
  async end(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const ended = once(this.process, "close");
    this.process.stdin?.end();
    await ended;
  }
}
