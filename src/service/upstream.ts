/** How the service reaches the real nix-daemon: its socket, or a command that speaks the protocol (ssh). */
import { spawn } from "node:child_process";
import { lstatSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { UpstreamConfig } from "../config/config.ts";
import { connectStream, pairStream } from "../host/socket.ts";
import { UserDatabase } from "../host/users.ts";
import { type Connect, LONGEST_REPLY } from "../sandbox/upstream/connection.ts";

export function connectTo(upstream: UpstreamConfig): Connect {
  const { command, socket } = upstream;
  const options = { maxBuffer: LONGEST_REPLY };
  if (!command) return () => connectStream(socket, options);
  return async () => {
    const [program, ...args] = command;
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (error) => reject(new Error(`cannot run upstream.command: ${error.message}`)));
    });
    // A child that ends early breaks its pipes; the stream reports that.
    child.on("error", () => undefined);
    return pairStream(child.stdout, child.stdin, options);
  };
}

/** systemd has the number of a unit's start here, in a link that it creates again at each start. */
const STARTED_BY_SYSTEMD = "/run/systemd/units/invocation:nix-daemon.service";

/**
 * Distinguishes a restarted daemon from its predecessor: a daemon creates its socket again, and systemd,
 * which keeps the socket for it, writes down each start. Undefined where it cannot be told, and while there
 * is no daemon. It is asked for with every question, and looked at a few times a second.
 */
export function generationOf({ command, socket }: UpstreamConfig): () => string | undefined {
  if (command) return () => undefined;
  let seen: string | undefined;
  let looked = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (now - looked >= LOOK_MS) {
      looked = now;
      const made = markOf(socket);
      seen = made && `${made} ${markOf(STARTED_BY_SYSTEMD)}`;
    }
    return seen;
  };
}

/** A daemon takes longer to start. */
const LOOK_MS = 20;

function markOf(path: string): string | undefined {
  try {
    const status = lstatSync(path, { bigint: true, throwIfNoEntry: false });
    return status && `${status.dev}:${status.ino}:${status.ctimeNs}`;
  } catch {
    // We may not look into its folder, nor connect: whoever tries is told.
    return undefined;
  }
}

/**
 * @param error of connecting to it
 * @returns the group that this user would have to join: Debian's socket is in a folder for a group; undefined if that is not why
 */
export function missingGroup({ socket }: UpstreamConfig, error: Error): string | undefined {
  if (!error.message.endsWith(": EACCES")) return undefined;
  try {
    const { gid, mode } = statSync(dirname(socket));
    return (mode & 0o011) === 0o010 ? new UserDatabase().groupName(gid) : undefined;
  } catch {
    return undefined;
  }
}

/** Where upstream is, for messages. */
export function upstreamName(upstream: UpstreamConfig): string {
  return upstream.command ? `'${upstream.command.join(" ")}'` : upstream.socket;
}
