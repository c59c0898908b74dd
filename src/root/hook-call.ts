/** How Nix called a hook: what it is told in its arguments and environment, and by whom. */
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { owner } from "../contract/trusted-file.ts";
import { nixSetting } from "./nix-settings.ts";
import { effectiveUid, processStat } from "./process-tree.ts";

export type HookName = "pre-build-hook" | "post-build-hook";

export interface HookCall {
  readonly args: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The process that called it. */
  readonly parent: number;
  /** The value of a setting of the daemon's. */
  setting(name: string): string;
  /** Writes a line to the hook's stderr. @throws if that is another process's */
  warn(text: string): void;
  /** Whether the hook still waits: one that gave the linker up has its own program do the work. */
  isWaiting(): boolean;
}

/** The call of this process. */
export function ownCall(args: readonly string[]): HookCall {
  return {
    args,
    environment: process.env,
    parent: process.ppid,
    setting: (name) => nixSetting(name),
    warn: (text) => process.stderr.write(`nix-broker: ${text}\n`),
    isWaiting: () => true,
  };
}

/**
 * The call of another process, a hook that waits for us. Its settings throw if one of their files cannot be read here, where
 * other folders are hidden than from the daemon.
 * @throws when there is no such process, or it is another one
 */
export function callOf(pid: number, name: HookName): HookCall {
  const before = processStat(pid);
  const [program = "", ...args] = listOf(pid, "cmdline");
  const variables = listOf(pid, "environ").map((line): [string, string] => {
    const [variable = ""] = line.split("=", 1);
    return [variable, line.slice(variable.length + 1)];
  });
  const after = processStat(pid);
  if (!before || after?.startTime !== before.startTime || effectiveUid(pid) !== owner())
    throw new Error(`process ${pid} is no hook of the daemon's`);
  if (basename(program) !== name) throw new Error(`process ${pid} is not a ${name}`);
  const environment = Object.fromEntries(variables);
  return {
    args,
    environment,
    parent: after.parent,
    setting: (setting) => nixSetting(setting, environment, (path) => readFileSync(path, "utf8")),
    warn: (text) => {
      throw new Error(text);
    },
    isWaiting: () => isStillHook(pid, name, before.startTime),
  };
}

/** What gave the linker up has become the script, or the next hook. */
function isStillHook(pid: number, name: HookName, startTime: string): boolean {
  try {
    const [program = ""] = listOf(pid, "cmdline");
    return basename(program) === name && processStat(pid)?.startTime === startTime;
  } catch {
    return false;
  }
}

/** Strings with a NUL at the end of each: proc_pid_cmdline(5), proc_pid_environ(5). */
function listOf(pid: number, file: "cmdline" | "environ"): string[] {
  return readFileSync(`/proc/${pid}/${file}`, "utf8").split("\0").slice(0, -1);
}
