/**
 * The home of a per-build sandbox: a root for each path that its view gained, in a folder that survives a
 * crash and that the post-build hook reads as the list of gained paths; a temporary root for each; and the
 * linker, which makes the paths visible in the build's own store.
 */
import { symlink } from "node:fs/promises";
import { Refusal } from "../../sandbox/refusal.ts";
import type { Home } from "../../sandbox/sandbox.ts";
import { type StorePath, storePathBase } from "../../store/store-path.ts";
import { type LinkerClient, LinkerError } from "./linker-client.ts";

export class BuildHome implements Home {
  private readonly id: string;
  private readonly roots: string;
  private readonly linker: LinkerClient;
  private readonly temporary: Home;

  /**
   * @param roots the folder that the hook made for this sandbox's roots
   * @param temporary roots that the daemon itself keeps for as long as the sandbox lives
   */
  constructor(id: string, roots: string, linker: LinkerClient, temporary: Home) {
    this.id = id;
    this.roots = roots;
    this.linker = linker;
    this.temporary = temporary;
  }

  /**
   * A running garbage collection has already read the links, and reads the temporary roots next, or is told
   * about new ones: until it is over, only these count.
   */
  async keep(paths: readonly StorePath[]): Promise<void> {
    await Promise.all([this.link(paths), this.temporary.keep(paths)]);
  }

  private async link(paths: readonly StorePath[]): Promise<void> {
    await Promise.all(
      paths.map(async (path) => {
        try {
          await symlink(path, `${this.roots}/${storePathBase(path)}`);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code === "EEXIST") return;
          throw new Refusal(
            "nix-broker cannot keep this path from the garbage collector; the reason is in its audit log",
            {
              verdict: "forward",
              reason: `cannot make a root: ${(error as Error).message}`,
            },
          );
        }
      }),
    );
  }

  async show(paths: readonly StorePath[]): Promise<void> {
    try {
      await Promise.all(paths.map((path) => this.linker.link(this.id, path)));
    } catch (error) {
      if (!(error instanceof LinkerError)) throw error;
      throw new Refusal(`nix-broker cannot make a path visible in this sandbox: ${error.message}`, {
        verdict: "forward",
        reason: `linker: ${error.code}`,
      });
    }
  }

  /** The links stay: root's programs remove them, once the references are registered. */
  end(): Promise<void> {
    return this.temporary.end();
  }
}
