/** How the service reaches the real nix-daemon: its socket, or a command that speaks the protocol (ssh). */
import { spawn } from "node:child_process";
import type { UpstreamConfig } from "../config/config.ts";
import { connectStream, pairStream } from "../host/socket.ts";
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

/** Where upstream is, for messages. */
export function upstreamName(upstream: UpstreamConfig): string {
  return upstream.command ? `'${upstream.command.join(" ")}'` : upstream.socket;
}
