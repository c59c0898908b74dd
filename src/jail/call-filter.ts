/**
 * The system calls that a jail may not make, because no namespace confines them:
 *
 * - typing into the terminal that it shares (TIOCSTI, and TIOCLINUX on a console): the shell that the jail was started from
 *   would run that. Kernels before 6.2 allow it, and later ones unless `dev.tty.legacy_tiocsti` is 0;
 * - the kernel's keyrings: that of the user's session, which may hold tickets and passwords, is inherited.
 *
 * It is a classic BPF program, as `bwrap --seccomp` takes it. Commands of ioctl are compared by their lower half, as the
 * kernel does, and the calls of 32-bit programs are filtered, too.
 */

interface Calls {
  /** AUDIT_ARCH_… of <linux/audit.h>. */
  readonly architecture: number;
  readonly ioctl: number;
  /** The first and the last of add_key, request_key and keyctl, which follow each other. */
  readonly keys: readonly [first: number, last: number];
}

/** Of 64-bit programs, and of 32-bit ones. */
const processors: Readonly<Record<string, readonly [Calls, Calls]>> = {
  x64: [
    { architecture: 0xc000003e, ioctl: 16, keys: [248, 250] },
    { architecture: 0x40000003, ioctl: 54, keys: [286, 288] },
  ],
  arm64: [
    { architecture: 0xc00000b7, ioctl: 29, keys: [217, 219] },
    { architecture: 0x40000028, ioctl: 54, keys: [309, 311] },
  ],
};

/** Whether there is a filter for a processor, by Node's name. Without one, a jail must not share a terminal. */
export function hasCallFilter(processor: string): boolean {
  return Object.hasOwn(processors, processor);
}

const LOAD = 0x20;
const IF_EQUAL = 0x15;
const IF_GREATER = 0x25;
const IF_AT_LEAST = 0x35;
const RETURN = 0x06;

const ALLOW = 0x7fff0000;
/** SECCOMP_RET_ERRNO with EPERM. */
const DENY = 0x00050001;

/** Offsets in struct seccomp_data, little-endian. */
const NUMBER = 0;
const ARCHITECTURE = 4;
const SECOND_ARGUMENT = 24;

/** The system calls of x32 have this bit; nothing else has numbers so high. */
const X32 = 0x40000000;
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;

interface Instruction {
  readonly label?: string;
  readonly code: number;
  readonly value: number;
  /** Where a comparison goes on; without a label, at the next instruction. */
  readonly yes?: string;
  readonly no?: string;
}

function callsOf({ architecture, ioctl, keys }: Calls, otherwise: string): Instruction[] {
  return [
    { label: String(architecture), code: IF_EQUAL, value: architecture, no: otherwise },
    { code: LOAD, value: NUMBER },
    { code: IF_AT_LEAST, value: X32, yes: "deny" },
    { code: IF_EQUAL, value: ioctl, yes: "ioctl" },
    { code: IF_AT_LEAST, value: keys[0], no: "allow" },
    { code: IF_GREATER, value: keys[1], yes: "allow", no: "deny" },
  ];
}

/** @throws RangeError for a processor that `hasCallFilter` does not know */
export function callFilter(processor: string): Buffer {
  const calls = processors[processor];
  if (calls === undefined) throw new RangeError(`there is no system call filter for ${processor}`);
  const [own, compatible] = calls;
  return assembled([
    { code: LOAD, value: ARCHITECTURE },
    ...callsOf(own, String(compatible.architecture)),
    ...callsOf(compatible, "deny"),
    { label: "ioctl", code: LOAD, value: SECOND_ARGUMENT },
    { code: IF_EQUAL, value: TIOCSTI, yes: "deny" },
    { code: IF_EQUAL, value: TIOCLINUX, yes: "deny" },
    { label: "allow", code: RETURN, value: ALLOW },
    { label: "deny", code: RETURN, value: DENY },
  ]);
}

/** An array of struct sock_filter: u16 code, u8 jump if true, u8 jump if false, u32 value. */
function assembled(program: readonly Instruction[]): Buffer {
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(({ code, value, yes, no }, at) => {
    const jump = (to: string | undefined): number =>
      to === undefined ? 0 : program.findIndex(({ label }) => label === to) - at - 1;
    bytes.writeUInt16LE(code, at * 8);
    bytes.writeUInt8(jump(yes), at * 8 + 2);
    bytes.writeUInt8(jump(no), at * 8 + 3);
    bytes.writeUInt32LE(value, at * 8 + 4);
  });
  return bytes;
}
