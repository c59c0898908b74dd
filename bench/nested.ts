/** Builds that build: beside a daemon with our hooks, and by Nix's own recursive-nix. */
import { type Daemon, lab, type NixVersion, sandboxScript } from "../lab/lab.ts";
import { RecursiveLab } from "../lab/recursive.ts";

export const nestedNames = ["ours", "theirs"] as const;
export type NestedName = (typeof nestedNames)[number];

const features: Record<NestedName, string> = { ours: "nix-broker", theirs: "recursive-nix" };

export interface Nested {
  /** Our service's own socket, with an empty view, and the other daemon's: on the machine. */
  readonly sockets: Readonly<Record<NestedName, string>>;
  readonly daemons: Readonly<Record<NestedName, Daemon>>;
  /** Builds an expression, made for the system feature with which its builder can build. */
  build(name: NestedName, expression: (feature: string) => string): Promise<void>;
  stop(): Promise<void>;
}

/** @param atOnce how many builds that build may run at the same time */
export async function startNested(version: NixVersion, atOnce = 4): Promise<Nested> {
  const options = { memory: true, maxJobs: 2 * atOnce, buildUsers: Math.max(16, 3 * atOnce) };
  const ours = await RecursiveLab.start(version, options);
  try {
    const theirs = await lab.start(version, {
      ...options,
      systemFeatures: ["recursive-nix"],
      config: "experimental-features = nix-command recursive-nix\n",
    });
    const daemons = { ours: ours.daemon, theirs };
    return {
      daemons,
      sockets: { ours: ours.broker?.hostSocket ?? "", theirs: theirs.socket },
      async build(name, expression) {
        await daemons[name].build(expression(features[name]), { timeoutMs: 1_200_000 });
      },
      async stop() {
        await ours.stop();
        await theirs.stop();
      },
    };
  } catch (error) {
    await ours.stop();
    throw error;
  }
}

/**
 * A script that calls nix-build so many times.
 * @param salt makes all of it new
 * @param input a store path that each of them needs
 */
export function innerLoop(builds: number, salt: string, input = ""): string {
  const needs = input === "" ? "" : `input = builtins.storePath ${input};`;
  return `cd $(mktemp -d); export HOME=$PWD
cat > inner.nix <<'END'
{ number }: derivation {
  name = "inner-\${number}"; salt = "${salt}"; system = builtins.currentSystem; ${needs}
  builder = "/bin/sh"; args = [ "-c" "echo \${number} > $out; :" ];
}
END
for i in $(seq ${builds}); do
  nix-build --no-out-link inner.nix --argstr number $i 2> log || { cat log >&2; exit 1; }
done`;
}

/** An outer build of such a script. */
export function outerBuild(script: string, feature: string, name = "outer"): string {
  return sandboxScript(`(${script}) > $out`, { name, features: [feature] });
}
