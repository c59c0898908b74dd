/** The way that a path takes through links, each of which could be somebody else's. */
import { readlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { isLink } from "./machine.ts";

export interface Way {
  /** What it passes by, each where it is on the machine: folders, links, and its end. */
  readonly steps: readonly string[];
  /** Where it ends, without links, whether that is there or not. */
  readonly end: string;
}

/** As the kernel has it. */
const MOST_LINKS = 40;

/**
 * @param path absolute
 * @throws Error for links that lead in circles
 */
export function wayOf(path: string): Way {
  const steps: string[] = [];
  const parts = path.split("/");
  let end = "/";
  let links = 0;
  for (let part = parts.shift(); part !== undefined; part = parts.shift()) {
    const next = part === ".." ? dirname(end) : join(end, part);
    steps.push(next);
    if (part === ".." || !isLink(next)) {
      end = next;
      continue;
    }
    links += 1;
    if (links > MOST_LINKS) throw new Error(`too many links on the way of ${path}`);
    const target = readlinkSync(next);
    parts.unshift(...target.split("/"));
    if (target.startsWith("/")) end = "/";
  }
  return { steps, end };
}
