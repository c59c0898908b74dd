/** The text in a NAR of one file: how derivations come by operations that bring NARs. */
import { NarWalker } from "../../store/nar-walker.ts";
import { Refusal, tooLong } from "../refusal.ts";
import { GrowingBuffer } from "./growing-buffer.ts";

export class NarText {
  private readonly walker: NarWalker;
  private readonly size: number;
  private readonly limit: number;
  private readonly collected = new GrowingBuffer();
  private length = 0;

  /**
   * @param size of the NAR in bytes, as the client said
   * @param limit of the text in bytes
   */
  constructor(size: number, limit: number) {
    this.size = size;
    this.limit = limit;
    this.walker = new NarWalker((slice) => {
      this.length += slice.length;
      if (this.length <= limit) this.collected.append(slice);
    });
  }

  /** Bytes that are held. */
  get held(): number {
    return this.length;
  }

  get done(): boolean {
    return this.walker.done;
  }

  /**
   * @returns how many bytes of `slice` belong to the NAR
   * @throws NarError when it is not canonical, Refusal when the text is longer than the limit.
   */
  push(slice: Buffer): number {
    const taken = this.walker.push(slice);
    if (this.length > this.limit) throw tooLong("textBytes", this.limit);
    return taken;
  }

  /** @throws Refusal unless it was a file that is not executable, and as long as was said. */
  text(): Buffer {
    if (this.walker.rootType !== "regular")
      throw new Refusal("a derivation must be a regular file that is not executable");
    if (this.walker.length !== this.size)
      throw new Refusal(`the NAR is not as long as the ${this.size} bytes that were announced`);
    return this.collected.held;
  }
}
