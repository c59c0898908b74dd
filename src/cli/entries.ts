/** The commands by name. Their code is loaded when they are run. */
import type { Command } from "commander";

export interface Entry {
  readonly summary: string;
  /** Imports only the command's own file, so that every command starts quickly. */
  readonly load: () => Promise<{ readonly command: () => Command }>;
}

export const entries: Readonly<Record<string, Entry>> = {
  serve: {
    summary: "run the broker",
    load: () => import("./serve.ts"),
  },
  stdio: {
    summary: "serve one connection on standard input and output, e.g. as an ssh forced command",
    load: () => import("./stdio.ts"),
  },
  jail: {
    summary: "run a command in a jail with a Nix that is safe to hand to it",
    load: () => import("./jail.ts"),
  },
  status: {
    summary: "show the service's status",
    load: () => import("./status.ts"),
  },
  sandboxes: {
    summary: "list the running sandboxes, or show one in detail",
    load: () => import("./sandboxes.ts"),
  },
  build: {
    summary: "like nix-build, continuing while outputs name derivations to build next",
    load: () => import("./build.ts"),
  },
  doctor: {
    summary: "check this installation, and say how to fix what is wrong",
    load: () => import("./doctor.ts"),
  },
  audit: {
    summary: "list, verify and export the recorded requests",
    load: () => import("./audit.ts"),
  },
  provenance: {
    summary: "show which inner builds an output came from",
    load: () => import("./provenance.ts"),
  },
  policy: {
    summary: "print what a profile permits, and why",
    load: () => import("./policy.ts"),
  },
  "check-config": {
    summary: "check a configuration file and report its problems with their lines",
    load: () => import("./check-config.ts"),
  },
};

/** What is below the list of commands. */
export const overview = `
Examples:
  nix-broker serve                       serve as /etc/nix-broker/config.toml says
  nix-broker serve --listen /run/user/1000/nix-broker/jail/socket --profile agent --allow alice
  nix-broker policy --profile pure       what a sandbox with this profile may do
  nix-broker audit --verdict deny --since 1h

Exit codes: 0 success, 1 failure or a negative answer, 2 wrong usage or configuration, 3 the service cannot be reached.`;
