/**
 * Who waits for whom (G9). A build holds the locks of its output paths while it runs, and the builds that run
 * in our sandboxes ask for other builds meanwhile: two that ask for each other would wait forever, and so
 * would outer builds that use up all build users while each waits for one more.
 *
 * Keys are output paths, and derivation paths for outputs that are not known before: derivations that share an
 * output path share a lock.
 */
import type { StorePath } from "../store/store-path.ts";
import { Refusal, type RefusalDetails } from "./refusal.ts";
import type { Sandbox } from "./sandbox.ts";

type Holder = Sandbox | symbol;

/** Why a request was not allowed to wait: a label of the metrics. */
export const WAIT_REASONS = ["cycle", "build_users", "unregistered"] as const;
export type WaitReason = (typeof WAIT_REASONS)[number];

export interface WaitsOptions {
  /** How many builds Nix runs at once; `Infinity` if it allocates users as needed. */
  readonly buildUsers: number;
  /** Called for each refused request; for the metrics. */
  onRefused(reason: WaitReason): void;
  /** How long `released` waits, in milliseconds; default 60 000. */
  readonly patience?: number;
}

export class Waits {
  /** Sandboxes of builds, oldest first, with the functions that release what their builds hold. */
  private readonly builds = new Map<Sandbox, () => void>();
  private readonly holders = new Map<StorePath, Set<Holder>>();
  private readonly requests = new Map<Sandbox, Set<ReadonlySet<StorePath>>>();
  private readonly releases = new Set<() => void>();
  private readonly options: WaitsOptions;

  constructor(options: WaitsOptions) {
    this.options = options;
  }

  /** A build runs, in that sandbox, and holds the locks of these outputs until `ended`. */
  began(sandbox: Sandbox, outputs: readonly StorePath[]): void {
    this.builds.set(sandbox, this.hold(outputs, sandbox));
  }

  ended(sandbox: Sandbox): void {
    this.builds.get(sandbox)?.();
    this.builds.delete(sandbox);
  }

  /**
   * Outputs that nobody may have yet. Without a holder: those of a build that is over, whose references are
   * still to be registered.
   *
   * @returns the release function
   */
  hold(outputs: readonly StorePath[], holder: Holder = Symbol("unsettled")): () => void {
    for (const output of outputs) {
      const holders = this.holders.get(output);
      if (holders) holders.add(holder);
      else this.holders.set(output, new Set([holder]));
    }
    return () => {
      for (const output of outputs) {
        const holders = this.holders.get(output);
        holders?.delete(holder);
        if (holders?.size === 0) this.holders.delete(output);
      }
      for (const wake of this.releases) wake();
    };
  }

  /** Outputs that nobody may have yet. */
  heldPaths(): StorePath[] {
    return [...this.holders.keys()];
  }

  /**
   * Valid paths that a build still holds may gain references yet: Nix registers an output before the post-build hook runs.
   * @returns whether one of the paths was held; then it no longer is
   * @throws Refusal when one is held for too long
   */
  async released(paths: readonly StorePath[]): Promise<boolean> {
    const held = (): StorePath | undefined => paths.find((path) => this.holders.has(path));
    if (held() === undefined) return false;
    const end = Date.now() + (this.options.patience ?? 60_000);
    for (let path = held(); path !== undefined; path = held()) {
      const left = end - Date.now();
      if (left <= 0)
        throw this.refusal(
          "unregistered",
          `'${path}' is the output of a build whose references are not registered yet; ask again when that is done`,
          { verdict: "forward", reason: "references not registered" },
        );
      await this.nextEnd(left);
    }
    return true;
  }

  private nextEnd(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.releases.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, milliseconds);
      this.releases.add(wake);
    });
  }

  /**
   * A sandbox is about to ask for builds that need these outputs.
   *
   * @returns the function that ends the wait
   * @throws Refusal when the request could wait forever
   */
  begin(sandbox: Sandbox, outputs: ReadonlySet<StorePath>): () => void {
    this.requireFreeUser(sandbox);
    const waitedFor = this.holdersOf(outputs);
    for (const holder of waitedFor)
      if (holder === sandbox || this.reaches(holder, sandbox, new Set())) throw this.cycle(sandbox, holder);
    const requests = this.requests.get(sandbox) ?? new Set();
    this.requests.set(sandbox, requests.add(outputs));
    return () => {
      requests.delete(outputs);
      if (requests.size === 0) this.requests.delete(sandbox);
    };
  }

  /**
   * One of the build users must stay free for inner builds. The sandbox that took the last one was the
   * newest: that one gets no inner builds, therefore ends, and frees its user.
   */
  private requireFreeUser(sandbox: Sandbox): void {
    const { buildUsers } = this.options;
    if (!this.builds.has(sandbox) || this.builds.size < buildUsers) return;
    const rank = [...this.builds.keys()].indexOf(sandbox) + 1;
    if (rank < buildUsers) return;
    throw this.refusal(
      "build_users",
      `all ${buildUsers} build users are taken by builds that may ask for inner builds, so this one, the newest, gets none ` +
        "(hooks.build_users); build again when fewer run at once, or add build users",
      { reason: "no build user would be left" },
    );
  }

  /** What is over waits for nobody, so no cycle goes through it. */
  private holdersOf(outputs: ReadonlySet<StorePath>): Set<Sandbox> {
    const found = new Set<Sandbox>();
    for (const output of outputs)
      for (const holder of this.holders.get(output) ?? []) if (typeof holder !== "symbol") found.add(holder);
    return found;
  }

  /** Whether following what `from` waits for leads to `target`. */
  private reaches(from: Sandbox, target: Sandbox, visited: Set<Sandbox>): boolean {
    if (visited.has(from)) return false;
    visited.add(from);
    for (const outputs of this.requests.get(from) ?? [])
      for (const holder of this.holdersOf(outputs))
        if (holder === target || this.reaches(holder, target, visited)) return true;
    return false;
  }

  private cycle(sandbox: Sandbox, holder: Sandbox): Refusal {
    const what =
      holder === sandbox
        ? "needs the outputs of the build that asks for it"
        : "needs the outputs of a build that, through inner builds, waits for this one";
    const text = `the requested build ${what}: they would wait for each other forever`;
    return this.refusal("cycle", text, { reason: "wait cycle" });
  }

  private refusal(reason: WaitReason, message: string, details: RefusalDetails): Refusal {
    this.options.onRefused(reason);
    return new Refusal(message, details);
  }
}
