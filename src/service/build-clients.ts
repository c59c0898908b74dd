/** Clients of a static socket that all builds see (`view = "build"`). */
import type { ByteStream } from "../host/byte-stream.ts";
import type { Sandbox } from "../sandbox/sandbox.ts";
import { LinkerError } from "./builds/linker-client.ts";
import type { ListenerServices } from "./listeners.ts";

/**
 * Serves a client of a socket that all builds see: the linker, as root, finds out which build it runs in.
 * @param unknown the sandbox that refusals are recorded under
 * @param identified called when the build is known, or there is none
 */
export async function serveBuild(
  stream: ByteStream,
  unknown: Sandbox,
  { broker, builds, linker }: ListenerServices,
  identified: () => void,
): Promise<void> {
  const { pid = -1, uid = -1 } = stream.peer ?? {};
  try {
    const find = async () => builds.find(await linker.identify(pid, uid));
    const sandbox = await find().finally(identified);
    if (!sandbox || !builds.admits(sandbox, uid))
      broker.refuse(stream, unknown, "this process is not part of a build that nix-broker knows");
    else await broker.serve(stream, sandbox);
  } catch (error) {
    if (!(error instanceof LinkerError)) throw error;
    broker.refuse(
      stream,
      unknown,
      `nix-broker serves this socket to builds that ask for it: ${error.message}`,
    );
  }
}
