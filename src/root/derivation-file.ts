/** Reading the file of a derivation, which whoever may add to the store has written. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import type { RootConfig } from "../contract/root-config.ts";
import { type Derivation, DerivationError, derivationOf } from "../store/derivation.ts";
import { inSlices, type Pace } from "../store/slices.ts";
import { SYSTEM_FEATURE } from "./opt-in.ts";

/** Longer ones are not read, in bytes. The largest of nixpkgs have less than 2 MiB. */
const MAX_DERIVATION = 16 * 1024 * 1024;

/**
 * @param base the file name of the `.drv`
 * @throws DerivationError when it is too long, no regular file, or no derivation; and errors of the operating system
 */
export async function readDerivation(config: RootConfig, base: string, pace: Pace): Promise<Derivation> {
  return inSlices(derivationOf(await textOf(config, base)), pace);
}

/**
 * As {@link readDerivation}, for one that may ask for a sandbox: where the bytes do not name the feature, it does not, and is not parsed.
 * @returns undefined then
 */
export async function readAskingDerivation(
  config: RootConfig,
  base: string,
  pace: Pace,
): Promise<Derivation | undefined> {
  const text = await textOf(config, base);
  return text.includes(SYSTEM_FEATURE) ? inSlices(derivationOf(text), pace) : undefined;
}

async function textOf(config: RootConfig, base: string): Promise<Buffer> {
  // A .drv may be a symlink to anything: opening a pipe would wait for somebody who writes to it.
  const file = await open(`${config.storeReal}/${base}`, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await file.stat();
    if (!stats.isFile()) throw new DerivationError(`${base} is not a regular file.`);
    const { size } = stats;
    if (size > MAX_DERIVATION)
      throw new DerivationError(`${base} has ${size} bytes; more than ${MAX_DERIVATION} are not read.`);
    return await readWhole(file, size);
  } finally {
    await file.close();
  }
}

async function readWhole(file: FileHandle, size: number): Promise<Buffer> {
  const text = Buffer.alloc(size);
  for (let length = 0; length < size; ) {
    const { bytesRead } = await file.read(text, length, size - length, length);
    if (bytesRead === 0) return text.subarray(0, length);
    length += bytesRead;
  }
  return text;
}
