/**
 * A system call filter that keeps a jail from typing into the terminal that it shares: what is pushed into a terminal's
 * input (TIOCSTI, and TIOCLINUX on a console) is read, and run, by the shell that the jail was started from. Kernels before
 * 6.2 allow it, and later ones unless `dev.tty.legacy_tiocsti` is 0.
 *
 * It is a classic BPF program, as `bwrap --seccomp` takes it. Commands of ioctl are compared by their lower half, as the
 * kernel does, and the calls of 32-bit programs are filtered, too.
 */

interface Architecture {
  /** AUDIT_ARCH_… of <linux/audit.h>, and the number of ioctl, for 64-bit programs and for 32-bit ones. */
  readonly own: readonly [arch: number, ioctl: number];
  readonly compatible: readonly [arch: number, ioctl: number];
}

const architectures: Readonly<Record<string, Architecture>> = {
  x64: { own: [0xc000003e, 16], compatible: [0x40000003, 54] },
  arm64: { own: [0xc00000b7, 29], compatible: [0x40000028, 54] },
};

/** Whether there is a filter for a CPU, by Node's name. Without one, a jail must not share a terminal. */
export function canFilterTerminal(cpu: string): boolean {
  return Object.hasOwn(architectures, cpu);
}

const LOAD = 0x20;
const JUMP_IF_EQUAL = 0x15;
const JUMP_IF_AT_LEAST = 0x35;
const RETURN = 0x06;

const ALLOW = 0x7fff0000;
const DENY = 0x00050000 | 1; // SECCOMP_RET_ERRNO with EPERM

/** Offsets in struct seccomp_data, little-endian. */
const NUMBER = 0;
const ARCHITECTURE = 4;
const SECOND_ARGUMENT = 24;

/** The system calls of x32 have this bit; nothing else has numbers so high. */
const X32 = 0x40000000;
const TIOCSTI = 0x5412;
const TIOCLINUX = 0x541c;

type Instruction = readonly [code: number, ifTrue: number, ifFalse: number, value: number];

/** @throws RangeError for a CPU that `canFilterTerminal` does not know */
export function terminalFilter(cpu: string): Buffer {
  const architecture = architectures[cpu];
  if (architecture === undefined) throw new RangeError(`there is no system call filter for ${cpu}`);
  const { own, compatible } = architecture;
  const program: readonly Instruction[] = [
    [LOAD, 0, 0, ARCHITECTURE],
    [JUMP_IF_EQUAL, 0, 3, own[0]],
    [LOAD, 0, 0, NUMBER],
    [JUMP_IF_AT_LEAST, 8, 0, X32],
    [JUMP_IF_EQUAL, 3, 6, own[1]],
    [JUMP_IF_EQUAL, 0, 6, compatible[0]],
    [LOAD, 0, 0, NUMBER],
    [JUMP_IF_EQUAL, 0, 3, compatible[1]],
    [LOAD, 0, 0, SECOND_ARGUMENT],
    [JUMP_IF_EQUAL, 2, 0, TIOCSTI],
    [JUMP_IF_EQUAL, 1, 0, TIOCLINUX],
    [RETURN, 0, 0, ALLOW],
    [RETURN, 0, 0, DENY],
  ];
  const bytes = Buffer.alloc(program.length * 8);
  program.forEach(([code, ifTrue, ifFalse, value], index) => {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(ifTrue, index * 8 + 2);
    bytes.writeUInt8(ifFalse, index * 8 + 3);
    bytes.writeUInt32LE(value >>> 0, index * 8 + 4);
  });
  return bytes;
}
