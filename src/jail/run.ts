/** Starts bwrap, and waits for its end: descriptors, signals, exit code. */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { Writable } from "node:stream";
import { keepInheritedDescriptors } from "../host/inherited-descriptors.ts";
import {
  announced,
  type JailInput,
  type JailPlan,
  jailArguments,
  READY_FD,
  startedAs,
} from "./bubblewrap.ts";
import type { JailFolder } from "./folders.ts";
import { exchanged } from "./identity.ts";
import { JailError } from "./jail-error.ts";
import { placeInside } from "./machine.ts";

/** How a jail ended. */
export interface JailEnd {
  /** Whether the command was started; otherwise bwrap has said why it was not. */
  readonly started: boolean;
  /** As a shell has it: 128 + the number of a signal. */
  readonly code: number;
  /** Ctrl-C ended it: whoever started this program is to know, or a loop of a shell would go on. */
  readonly interrupted: boolean;
}

const passedOn = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;
/** Keys of the terminal send these, to every program at it. */
const ofTerminal: ReadonlySet<NodeJS.Signals> = new Set(["SIGINT", "SIGQUIT"]);
/** How often is looked whether the process that started this one is still there. */
const LOOK_MS = 500;

/**
 * @param folders of the user's, as they were judged
 * @param onStart called when all is mounted, before the command runs
 * @throws JailError when one of the folders is another one by then
 */
export async function runJail(
  plan: JailPlan,
  folders: readonly JailFolder[],
  onStart: () => void,
): Promise<JailEnd> {
  const { args, inputs } = jailArguments(plan);
  // A folder that is open is a way out, and a socket a way to somebody.
  keepInheritedDescriptors();
  const [program = "", ...words] = startedAs(plan, [...args, "--", ...announced(plan)]);
  const child = spawn(program, words, {
    env: {},
    stdio: ["inherit", "inherit", "inherit", "pipe", ...inputs.map(() => "pipe" as const)],
  });
  let started = false;
  let refused: JailError | undefined;
  const shell = child.stdio[READY_FD];
  shell?.on("error", () => undefined);
  shell?.once("data", () => {
    refused = problemOf(child, plan, folders);
    started = refused === undefined;
    onStart();
    if (refused) child.kill("SIGKILL");
    else if (shell instanceof Writable) shell.write("\n");
  });
  for (const input of inputs) feed(child, input);
  let interrupts = 0;
  const stopPassing = passSignals(child, (signal) => {
    if (!plan.leavesInterrupts || !ofTerminal.has(signal)) return false;
    interrupts += 1;
    return true;
  });
  const stopWatching = endWithParent(child);
  try {
    const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (...end) => resolve(end));
    });
    if (refused) throw refused;
    const ended = signal === null ? (code ?? 1) : 128 + constants.signals[signal];
    return { started, code: ended, interrupted: interrupts > 0 && ended === 128 + constants.signals.SIGINT };
  } finally {
    stopWatching();
    stopPassing();
  }
}

function problemOf(
  { pid = 0 }: ChildProcess,
  { files, machine }: JailPlan,
  folders: readonly JailFolder[],
): JailError | undefined {
  try {
    // What we put in place of the user's is ours.
    const other = exchanged(
      pid,
      folders.filter(({ target }) => !files.has(target)),
      (target) => placeInside(machine, target),
    );
    return (
      other &&
      new JailError(
        `${other.target} was replaced while the jail was made; see what has done that, and try again`,
      )
    );
  } catch (error) {
    return new JailError(`what the jail has mounted cannot be looked at: ${(error as Error).message}`);
  }
}

/** bwrap may end before it has read everything, and says why itself. */
function feed(child: ChildProcess, { fd, contents }: JailInput): void {
  const stream = child.stdio[fd];
  if (!(stream instanceof Writable)) return;
  stream.on("error", () => undefined);
  stream.end(Array.isArray(contents) ? contents.map((word) => `${word}\0`).join("") : contents);
}

/**
 * A signal for this process is one for the jail; bwrap takes everything in it along.
 * @param isTheirs whether the command has it already
 */
function passSignals(child: ChildProcess, isTheirs: (signal: NodeJS.Signals) => boolean): () => void {
  const pass = (signal: NodeJS.Signals): void => {
    if (!isTheirs(signal)) child.kill(signal);
  };
  for (const signal of passedOn) process.on(signal, pass);
  return () => {
    for (const signal of passedOn) process.off(signal, pass);
  };
}

/**
 * Ends the jail when the process that started this one ends. PR_SET_PDEATHSIG is not for this: it tells of the end of a
 * thread, and programs with many threads start others from any of them.
 */
function endWithParent(child: ChildProcess): () => void {
  const parent = process.ppid;
  const timer = setInterval(() => {
    if (process.ppid !== parent) child.kill("SIGHUP");
  }, LOOK_MS);
  return () => clearInterval(timer);
}
