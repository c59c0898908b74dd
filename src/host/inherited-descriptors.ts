/** Descriptors that this process was started with: those of a shell, of an editor, of whatever made it. */
import { readdirSync } from "node:fs";
import { closeOnExec } from "./libc.ts";

/** Input, output and errors. */
const STANDARD = 3;

/** Keeps them from programs that are started from now on, which get none that they are not given. Node's own are kept already. */
export function keepInheritedDescriptors(): void {
  for (const name of readdirSync("/proc/self/fd")) if (Number(name) >= STANDARD) closeOnExec(Number(name));
}
