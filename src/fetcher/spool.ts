/** Where what was downloaded is kept until it is sent on: files without a name, so that nothing of them is ever left over. */
import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, unlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Bytes that are read at a time. */
const PIECE = 256 * 1024;

/** More was to be kept than is allowed. */
export class SpoolFull extends Error {
  override name = "SpoolFull";
}

/** How much may be kept altogether, and what keeps it. */
export class Allowance {
  /** Bytes that this program has kept, of all allowances together. */
  static taken = 0;
  readonly bytes: number;
  private left: number;
  private readonly spools: Spool[] = [];

  /** @param bytes the most that all spools may hold */
  constructor(bytes: number) {
    this.bytes = bytes;
    this.left = bytes;
  }

  newSpool(): Spool {
    const spool = new Spool(this);
    this.spools.push(spool);
    return spool;
  }

  /** Forgets all that is kept. */
  release(): void {
    for (const spool of this.spools.splice(0)) closeSync(spool.fd);
  }

  /** @throws SpoolFull */
  take(bytes: number): void {
    this.left -= bytes;
    Allowance.taken += bytes;
    if (this.left < 0) throw new SpoolFull(`it holds more than ${this.bytes} bytes (limits.body_bytes)`);
  }
}

export class Spool {
  readonly fd: number;
  length = 0;
  private readonly allowance: Allowance;

  /** @throws the system's error when no file can be made */
  constructor(allowance: Allowance) {
    const path = join(tmpdir(), `nix-broker-fetch-${randomBytes(12).toString("hex")}`);
    this.fd = openSync(path, "wx+", 0o600);
    unlinkSync(path);
    this.allowance = allowance;
  }

  /** @throws SpoolFull, or the system's error (`ENOSPC`) */
  append(bytes: Uint8Array): void {
    this.allowance.take(bytes.length);
    for (let done = 0; done < bytes.length; ) {
      const written = writeSync(this.fd, bytes, done, bytes.length - done, this.length);
      done += written;
      this.length += written;
    }
  }

  /** Each piece is a buffer of its own. */
  *read(start = 0, length = this.length - start): Generator<Buffer> {
    for (let at = start; at < start + length; ) {
      const piece = Buffer.allocUnsafe(Math.min(PIECE, start + length - at));
      const count = readSync(this.fd, piece, 0, piece.length, at);
      if (count === 0) throw new Error("a file that was downloaded has become shorter");
      at += count;
      yield count < piece.length ? piece.subarray(0, count) : piece;
    }
  }
}
