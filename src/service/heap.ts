/** How the garbage collector of the service is set. */
import { setFlagsFromString } from "node:v8";

/** How much the heap may grow over what is in use before it is collected, in percent. */
const GROWTH = 50;

/**
 * By default V8 lets a heap that is small beside the machine's memory grow to several times what is in use: then garbage,
 * not requests, would be most of what the service takes.
 */
export function keepHeapSmall(): void {
  setFlagsFromString(`--heap-growing-percent=${GROWTH}`);
}
