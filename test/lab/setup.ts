import { lab } from "./lab.ts";

/** vitest's global setup: fetches once, before any test file asks which versions there are. */
export default async function setup(): Promise<void> {
  await lab.fetch();
}
