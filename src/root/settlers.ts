/**
 * Processes of the linker's that settle sandboxes: they read whole outputs, and wait for nix-store. One that has nothing to do
 * is kept for a while, since to start it takes longer than to settle most builds.
 */
import { type ChildProcess, fork } from "node:child_process";
import type { SandboxId } from "../contract/runtime-tree.ts";
import type { SandboxEnd } from "./sandbox-end.ts";

/** How many work at the same time. */
const MOST = 2;
const IDLE_MS = 10_000;

/** What a settler is asked; see `settler.ts`. */
export interface SettleRequest {
  readonly id: SandboxId;
  /** The daemon's `secret-key-files`, as a hook was told; undefined where no hook asks. */
  readonly keyFiles: string | undefined;
}

export type SettleAnswer = Pick<SandboxEnd, "outcome" | "violations" | "error">;

/** Settles a sandbox whose build is over, and writes `ended`. @throws Error when it cannot be told how that went */
export type Settle = (id: SandboxId, keyFiles?: string) => Promise<SettleAnswer>;

export class Settlers {
  private readonly program: string;
  private readonly idle: Settler[] = [];
  private readonly waiting: (() => void)[] = [];
  private working = 0;

  /** @param program for Node to run, with the argument `settler` */
  constructor(program: string) {
    this.program = program;
  }

  readonly settle: Settle = async (id, keyFiles) => {
    if (this.working < MOST) this.working++;
    else await new Promise<void>((resolve) => this.waiting.push(resolve));
    try {
      const settler = this.idle.pop() ?? new Settler(this.program, (ended) => this.forget(ended));
      const answer = await settler.ask({ id, keyFiles });
      this.idle.push(settler);
      return answer;
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.working--;
    }
  };

  private forget(settler: Settler): void {
    const place = this.idle.indexOf(settler);
    if (place >= 0) this.idle.splice(place, 1);
  }
}

class Settler {
  private readonly child: ChildProcess;
  private answered: ((answer: SettleAnswer) => void) | undefined;
  private failed: ((error: Error) => void) | undefined;
  private timer: NodeJS.Timeout | undefined;
  private readonly onEnd: (settler: Settler) => void;

  /** @param onEnd called when it can be asked nothing more, possibly twice */
  constructor(program: string, onEnd: (settler: Settler) => void) {
    this.onEnd = onEnd;
    this.child = fork(program, ["settler"]);
    this.child.on("message", (answer) => this.answered?.(answer as SettleAnswer));
    this.child.on("error", (error) => this.failed?.(error));
    this.child.on("exit", (code, signal) => {
      clearTimeout(this.timer);
      onEnd(this);
      this.failed?.(new Error(`settling ended with ${signal ?? code}`));
    });
  }

  async ask(request: SettleRequest): Promise<SettleAnswer> {
    clearTimeout(this.timer);
    const answer = await new Promise<SettleAnswer>((resolve, reject) => {
      this.answered = resolve;
      this.failed = reject;
      this.child.send(request);
    });
    this.failed = undefined;
    this.timer = setTimeout(() => this.letGo(), IDLE_MS);
    return answer;
  }

  /** First of all it is asked nothing more: the process may take a while to end. */
  private letGo(): void {
    this.onEnd(this);
    if (this.child.connected) this.child.disconnect();
  }
}
