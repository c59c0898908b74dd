import { spawnSync } from "node:child_process";
import { program } from "../../lab/program.ts";

export interface CommandResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `nix-broker`, without the configuration of this machine unless `environment` names one. */
export function nixBroker(args: readonly string[], environment: Record<string, string> = {}): CommandResult {
  const { status, stdout, stderr } = spawnSync(process.execPath, [program.cli, ...args], {
    encoding: "utf8",
    env: { ...process.env, NIX_BROKER_CONFIG: "/dev/null", NO_COLOR: "1", ...environment },
  });
  return { code: status, stdout, stderr };
}
