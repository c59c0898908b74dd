/** The work of the hooks, done by the linker. */
import type { RootConfig } from "../contract/root-config.ts";
import type { Derivation } from "../store/derivation.ts";
import { readAskingDerivation } from "./derivation-file.ts";
import { callOf, type HookName } from "./hook-call.ts";
import { postBuildHook } from "./post-build-hook.ts";
import { preBuildHook } from "./pre-build-hook.ts";
import type { Settle } from "./settlers.ts";
import { Turns } from "./turns.ts";

export class Hooks {
  private readonly config: RootConfig;
  private readonly settle: Settle;
  /** One derivation is read after the other: together they could take all memory. */
  private reading: Promise<unknown> = Promise.resolve();

  constructor(config: RootConfig, settle: Settle) {
    this.config = config;
    this.settle = settle;
  }

  /**
   * @returns what the hook prints
   * @throws anything; then its own program does the work, which may read and write more than the linker
   */
  async answer(name: HookName, pid: number): Promise<string> {
    const call = callOf(pid, name);
    if (name === "pre-build-hook") return preBuildHook(this.config, call, (base) => this.read(base));
    const { messages, isDone } = await postBuildHook(this.config, call, ({ id }) =>
      this.settle(id, call.setting("secret-key-files")),
    );
    if (!isDone) throw new Error(messages.join("\n"));
    return messages.map((message) => `nix-broker: ${message}\n`).join("");
  }

  private read(base: string): Promise<Derivation | undefined> {
    const turns = new Turns();
    const read = this.reading.then(() => turns.during(() => readAskingDerivation(this.config, base, turns)));
    this.reading = read.catch(() => undefined);
    return read;
  }
}
