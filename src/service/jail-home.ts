/**
 * The home of a jail that sees the whole store: what it built, or named, is kept as long as it runs, and links in folders that
 * outlast it are roots until they are removed, as they are without a jail.
 */
import { lstatSync, readlinkSync, realpathSync } from "node:fs";
import { dirname } from "node:path";
import type { Quota } from "../sandbox/quota.ts";
import { Refusal } from "../sandbox/refusal.ts";
import type { FoundLink, Home, Links } from "../sandbox/sandbox.ts";
import type { StorePath } from "../store/store-path.ts";
import type { Roots } from "./static-home.ts";

/** Where upstream finds a path of the jail; undefined for what is in no writable folder of the machine's. */
export type OutsidePath = (inside: string) => string | undefined;

/** PATH_MAX, without the zero at the end. */
const LONGEST_PATH = 4095;

export class JailHome implements Home, Links {
  private readonly roots: Roots;
  private readonly quota: Quota;
  private readonly outsidePath: OutsidePath;
  private readonly followed = new Set<string>();
  /** What is about to be kept: clients may ask for much at the same time. */
  private readonly keeping = new Set<StorePath>();

  constructor(roots: Roots, quota: Quota, outsidePath: OutsidePath) {
    this.roots = roots;
    this.quota = quota;
    this.outsidePath = outsidePath;
  }

  async keep(paths: readonly StorePath[]): Promise<void> {
    const fresh = paths.filter((path) => !this.roots.has(path));
    if (fresh.length === 0) return;
    const more = fresh.filter((path) => !this.keeping.has(path));
    this.quota.checkRoots(this.count + this.keeping.size + more.length);
    for (const path of more) this.keeping.add(path);
    try {
      await this.roots.keep(fresh);
    } finally {
      for (const path of more) this.keeping.delete(path);
    }
  }

  async hold(paths: readonly StorePath[]): Promise<void> {
    try {
      await this.keep(paths);
    } catch (error) {
      // Clients ask for these by the way, and would give up if they were refused.
      if (!(error instanceof Refusal)) throw error;
    }
  }

  async show(): Promise<void> {}

  end(): Promise<void> {
    return this.roots.end();
  }

  find(path: string): FoundLink | undefined {
    if (path.length > LONGEST_PATH || !isPlain(path)) return undefined;
    const outside = this.outsidePath(path);
    if (outside === undefined) return undefined;
    try {
      // On the machine, a link on the way would lead elsewhere than in the jail.
      const folder = dirname(outside);
      if (realpathSync(folder) !== folder || !lstatSync(outside).isSymbolicLink()) return undefined;
      return { outside, target: readlinkSync(outside) };
    } catch {
      // It is not there (any more), or not ours to read.
      return undefined;
    }
  }

  async root({ outside, target }: FoundLink): Promise<void> {
    await this.keep([target]);
    if (this.followed.has(outside)) return;
    this.quota.checkRoots(this.count + 1);
    this.followed.add(outside);
    try {
      await this.roots.followLink(outside);
    } catch (error) {
      this.followed.delete(outside);
      throw error;
    }
  }

  private get count(): number {
    return this.roots.size + this.followed.size;
  }
}

/** Absolute, with nothing in it that a path on the machine could mean otherwise. */
function isPlain(path: string): boolean {
  return path.startsWith("/") && !path.includes("\0") && !/\/(?:\.{1,2})?(?:\/|$)/.test(path);
}
