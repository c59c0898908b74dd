/** Commands of Nix by a static socket with the view `store`, and straight to the daemon. */
import { copyFileSync } from "node:fs";
import { packageGraph } from "../lab/package-graph.ts";
import type { Bench } from "./measure.ts";
import { BenchBroker } from "./subjects.ts";

const GRAPH = "/tmp/package-graph.nix";

export const remoteNames = ["ours", "direct"] as const;
export type RemoteName = (typeof remoteNames)[number];

export interface StoreJail {
  /** @returns its standard output. @throws Error when the command fails */
  run(name: RemoteName, command: readonly string[]): Promise<string>;
  stop(): Promise<void>;
}

export async function startStoreJail(bench: Bench, name: string): Promise<StoreJail> {
  const { daemon } = await bench.subjects();
  copyFileSync(packageGraph, daemon.hostPath(GRAPH));
  const broker = await BenchBroker.start(daemon, { name, sockets: 1, view: "store" });
  const remotes: Record<RemoteName, string> = { ours: `unix://${broker.socketInside}`, direct: "daemon" };
  return {
    async run(remote, command) {
      const { code, stdout, stderr } = await daemon.run(command, {
        env: { NIX_REMOTE: remotes[remote] },
        timeoutMs: 1_200_000,
      });
      if (code !== 0) throw new Error(`${command.join(" ")} ended with ${code}: ${stderr}`);
      return stdout;
    },
    stop: () => broker.stop(),
  };
}

/** Evaluates an attribute of the graph of packages; `salt` makes all of it new. */
export function instantiateGraph(attribute: string, packages: number, salt: string): string[] {
  return [
    "nix-instantiate",
    GRAPH,
    ...["-A", attribute, "--arg", "packages", `${packages}`, "--argstr", "salt", salt],
  ];
}
