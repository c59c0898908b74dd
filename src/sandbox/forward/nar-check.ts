/**
 * Watches a NAR on its way upstream: it must be canonical, have the announced length, and have the content
 * address that determines its path. Upstream cannot be relied on for the last: Nix 2.3 never checks it, and no version looks
 * at contents that come for a path which it has. Who knows the hash of such a path must not get it for that (G1). Versions also
 * differ on where a NAR ends.
 */
import { createHash, type Hash } from "node:crypto";
import type { ContentAddress } from "../../store/content-address.ts";
import { NarWalker } from "../../store/nar-walker.ts";
import { Refusal } from "../refusal.ts";

export class NarCheck {
  private readonly walker: NarWalker;
  private readonly size: number;
  private readonly address: ContentAddress | undefined;
  private readonly flat: boolean;
  private readonly hash: Hash | undefined;

  /**
   * @param size in bytes, as announced by the client
   * @param address undefined if the contents are dropped, and may be anything
   */
  constructor(size: number, address: ContentAddress | undefined) {
    this.size = size;
    this.address = address;
    this.flat = address !== undefined && address.method !== "nar";
    const hash = address && createHash(address.hash.algorithm);
    this.hash = hash;
    this.walker = new NarWalker(this.flat ? (slice) => hash?.update(slice) : undefined);
  }

  get done(): boolean {
    return this.walker.done;
  }

  get length(): number {
    return this.walker.length;
  }

  /**
   * @returns how many bytes of `slice` belong to the NAR
   * @throws NarError when it is not canonical, Refusal when it is longer than announced.
   */
  push(slice: Buffer): number {
    const taken = this.walker.push(slice);
    if (!this.flat) this.hash?.update(slice.subarray(0, taken));
    if (this.walker.length > this.size) throw this.wrongSize("longer");
    return taken;
  }

  /** @throws Refusal unless everything is as announced. */
  finish(): void {
    if (!this.walker.done || this.walker.length < this.size) throw this.wrongSize("shorter");
    if (this.flat && this.walker.rootType !== "regular")
      throw new Refusal(
        "the contents must be a regular file that is not executable, as their content address says",
      );
    if (this.address && !this.hash?.digest().equals(this.address.hash.digest))
      throw new Refusal("the contents do not have the content address that was given for them");
  }

  private wrongSize(how: "longer" | "shorter"): Refusal {
    return new Refusal(`the NAR is ${how} than the ${this.size} bytes that were announced`);
  }
}
