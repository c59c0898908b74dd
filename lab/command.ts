import { type ChildProcess, spawn } from "node:child_process";

/** The result of a finished command. */
export interface CommandResult {
  /** The exit code; 128 + the signal's number is not used: a killed command has `null` here. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Like `stdout`, but undecoded: for NARs and other binary output. */
  readonly stdoutBytes: Buffer;
}

/** How to run a command. */
export interface CommandOptions {
  /** Added to the small environment that the lab gives to commands. */
  readonly env?: Readonly<Record<string, string>>;
  /** Working folder, as seen by the command. */
  readonly cwd?: string;
  /** What the command reads on its standard input; nothing by default. */
  readonly input?: string | Uint8Array;
  /** Milliseconds after which the command and its process group are killed. Default: two minutes. */
  readonly timeoutMs?: number;
}

/** A failure of the lab itself: no such version, no privileges, a daemon that does not start. */
export class LabError extends Error {
  override readonly name = "LabError";
}

/** Where machines keep their programs, including those that only root calls. */
export const machinePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const defaultTimeoutMs = 120_000;

/** Starts a process in a session of its own, so that its whole group can be ended by its pid. */
export function startProcess(argv: readonly string[], options: CommandOptions = {}): ChildProcess {
  const [program, ...args] = argv;
  if (program === undefined) throw new LabError("No program was given to run.");
  return spawn(program, args, {
    cwd: options.cwd,
    env: { PATH: machinePath, ...options.env },
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
  });
}

/**
 * Runs a command to its end and collects what it printed.
 *
 * @throws LabError if the program cannot be started, or did not end in time.
 */
export function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
  return new Promise((resolve, reject) => {
    const child = startProcess(argv, options);
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      killGroup(child);
    }, timeoutMs);
    child.stdout?.on("data", (chunk: Buffer) => stdout.push(chunk));
    child.stderr?.on("data", (chunk: Buffer) => stderr.push(chunk));
    // A command that does not read its input closes the pipe, which is fine.
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.input ?? "");
    child.on("error", (error) => {
      clearTimeout(timer);
      reject(new LabError(`Cannot start ${argv[0]}: ${error.message}.`));
    });
    child.on("close", (code, signal) => {
      clearTimeout(timer);
      const errors = Buffer.concat(stderr).toString();
      if (timedOut) {
        reject(
          new LabError(`"${argv.join(" ")}" did not end within ${timeoutMs} ms. It printed:\n${errors}`),
        );
        return;
      }
      const bytes = Buffer.concat(stdout);
      resolve({ code, signal, stdout: bytes.toString(), stderr: errors, stdoutBytes: bytes });
    });
  });
}

/**
 * Runs a command that has to succeed.
 *
 * @throws LabError with what it printed if it did not exit with 0.
 */
export async function mustRun(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const result = await runCommand(argv, options);
  if (result.code !== 0) {
    throw new LabError(
      `"${argv.join(" ")}" ended with ${result.code ?? result.signal}:\n${result.stdout}${result.stderr}`,
    );
  }
  return result;
}

/** Kills a process that `startProcess` started, with its process group. */
export function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

/** Quotes a text as one word for a POSIX shell. */
export function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
