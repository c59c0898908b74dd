/** The last lines that each build of a request has logged, for the message that it failed. Pure. */
import { fromWireText } from "../../protocol/wire.ts";
import type { StorePath } from "../../store/store-path.ts";

/** As many as Nix itself shows, unless it is told otherwise. */
const MOST_LINES = 25;
/** In characters. */
const LONGEST_LINE = 1000;
/** For all builds of a request, in characters. */
const MOST_TEXT = 256 * 1024;

interface Tail {
  readonly lines: string[];
  /** How many lines there were. */
  count: number;
  length: number;
}

export class LogTails {
  /** The one that logged something last comes last. */
  private readonly tails = new Map<StorePath, Tail>();
  private length = 0;

  /** @param line as it came over the wire */
  add(derivation: StorePath, line: string): void {
    const tail = this.tails.get(derivation) ?? { lines: [], count: 0, length: 0 };
    this.tails.delete(derivation);
    this.tails.set(derivation, tail);
    // Decoded, it is a copy: a slice would keep the whole line in memory.
    const kept = fromWireText(line.slice(0, LONGEST_LINE));
    tail.lines.push(kept);
    tail.count += 1;
    this.resize(tail, kept.length);
    if (tail.lines.length > MOST_LINES) this.resize(tail, -(tail.lines.shift() ?? "").length);
    for (const [path, oldest] of this.tails) {
      if (this.length <= MOST_TEXT || oldest === tail) break;
      this.tails.delete(path);
      this.length -= oldest.length;
    }
  }

  private resize(tail: Tail, by: number): void {
    tail.length += by;
    this.length += by;
  }

  /** The text to follow the message that this derivation's build failed; "" if it has logged nothing. */
  textOf(derivation: StorePath | undefined): string {
    const tail = derivation === undefined ? undefined : this.tails.get(derivation);
    if (tail === undefined) return "";
    const { lines, count } = tail;
    const what = count > lines.length ? `last ${lines.length} of ${count} log lines` : "log";
    return `\n${what}:\n${lines.map((line) => `> ${line}`).join("\n")}`;
  }
}
