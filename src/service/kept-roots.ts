/**
 * The roots of a named jail: links in a folder of its own, which upstream follows for as long as they are there. So they
 * outlast restarts of the service, and of upstream.
 */
import { readdirSync, symlinkSync } from "node:fs";
import { basename } from "node:path";
import { makeFolders } from "../host/make-folders.ts";
import { Refusal } from "../sandbox/refusal.ts";
import type { StorePath } from "../store/store-path.ts";
import type { Roots, TemporaryRoots } from "./static-home.ts";

const FOLDER_MODE = 0o700;

export class KeptRoots implements Roots {
  private readonly folder: string;
  private readonly temporary: TemporaryRoots;
  /** Names of the links, which are the base names of their paths. */
  private readonly links: Set<string>;
  private ended = false;

  /**
   * @param folder of the links; made if it does not exist
   * @param temporary holds paths until they have a link
   * @throws the system's error
   */
  constructor(folder: string, temporary: TemporaryRoots) {
    this.folder = folder;
    this.temporary = temporary;
    makeFolders(folder, FOLDER_MODE);
    this.links = new Set(readdirSync(folder));
  }

  get size(): number {
    return this.links.size;
  }

  has(path: StorePath): boolean {
    return this.links.has(basename(path));
  }

  /** Has upstream follow the links of earlier runs: the last one may have ended between making a link and that. */
  async restore(): Promise<void> {
    await Promise.all([...this.links].map((name) => this.followLink(`${this.folder}/${name}`)));
  }

  async keep(paths: readonly StorePath[]): Promise<void> {
    await this.temporary.keep(paths);
    await Promise.all(paths.map((path) => this.link(path)));
  }

  followLink(link: string): Promise<void> {
    return this.temporary.followLink(link);
  }

  /** The links stay. */
  async end(): Promise<void> {
    this.ended = true;
    await this.temporary.end();
  }

  private async link(path: StorePath): Promise<void> {
    // The folder may be the next jail's by now.
    if (this.ended) throw new Refusal("this jail has ended");
    const name = basename(path);
    const link = `${this.folder}/${name}`;
    try {
      symlinkSync(path, link);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== "EEXIST")
        throw new Refusal(
          "nix-broker cannot keep this path from the garbage collector; the administrator must look into it",
          {
            reason: `cannot make a root of the jail: ${(error as Error).message}`,
          },
        );
    }
    // A link that is not followed, because upstream failed, is when its path is named again, or the service restarted.
    await this.followLink(link);
    this.links.add(name);
  }
}
