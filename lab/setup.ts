import { lab } from "./lab.ts";
import { buildProgram } from "./program.ts";

/** vitest's global setup: fetches and bundles once, before any test file asks which versions there are. */
export default async function setup(): Promise<void> {
  await buildProgram();
  await lab.fetch();
}
