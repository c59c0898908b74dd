/** A sandbox of nobody: no build, no parent, and a home that does nothing. */
import { Sandbox, type SandboxOptions } from "../../src/sandbox/sandbox.ts";

type Given = Pick<SandboxOptions, "profile" | "view" | "quota" | "store"> & Partial<SandboxOptions>;

export function bareSandbox(given: Given): Sandbox {
  return new Sandbox({
    id: "s",
    home: { keep: async () => {}, show: async () => {}, end: async () => {} },
    derivation: undefined,
    parent: undefined,
    fill: async () => {},
    released: async () => false,
    ...given,
  });
}
