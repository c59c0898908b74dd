/**
 * `bounded.ts "CAP_A CAP_B" PROGRAM…`: runs a program with no other capabilities than these, as CapabilityBoundingSet= of
 * a unit does. Lab systems have no setpriv.
 */
import { spawn } from "node:child_process";
import koffi from "koffi";

/** Numbers of linux/capability.h, of those that our units name. */
const numbers: Readonly<Record<string, number>> = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_DAC_READ_SEARCH: 2,
  CAP_FOWNER: 3,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
};
/** More than there are; the kernel refuses those. */
const allCapabilities = 64;
const PR_CAPBSET_DROP = 24;
const PR_SET_NO_NEW_PRIVS = 38;

const prctl = koffi.load("libc.so.6").func("int prctl(int, ulong, ulong, ulong, ulong)");
const [names = "", program = "", ...args] = process.argv.slice(2);
const kept = new Set(
  names.split(" ").map((name) => {
    const number = numbers[name];
    if (number === undefined) throw new Error(`unknown capability ${name}`);
    return number;
  }),
);
for (let number = 0; number < allCapabilities; number++)
  if (!kept.has(number)) prctl(PR_CAPBSET_DROP, number, 0, 0, 0);
prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);

// The bounding set counts when a program is started.
const child = spawn(program, args, { stdio: "inherit" });
process.on("SIGTERM", () => child.kill("SIGTERM"));
child.on("exit", (code) => {
  process.exitCode = code ?? 1;
});
