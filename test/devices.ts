/** Device nodes: those of systems that tests make, and those of the machine, which no test may change. */
import { statSync } from "node:fs";
import { shellQuote } from "../lab/command.ts";

/** Name, and the numbers of the device. */
const nodes = {
  null: "1 3",
  zero: "1 5",
  full: "1 7",
  random: "1 8",
  urandom: "1 9",
  tty: "5 0",
} as const;

/**
 * Lines of a shell script that fill a folder as a system's /dev. The nodes are made, not bound: what hands a program's input to
 * the user of a container does so to /dev/null, too, and the node would be the machine's.
 */
export function makeDevices(folder: string): string[] {
  const at = (name: string): string => shellQuote(`${folder}/${name}`);
  return [
    `mount -t tmpfs -o mode=755 tmpfs ${shellQuote(folder)}`,
    ...Object.entries(nodes).map(([name, numbers]) => `mknod -m 666 ${at(name)} c ${numbers}`),
    `ln -s /proc/self/fd ${at("fd")}; mkdir ${at("pts")}; mkdir -m 1777 ${at("shm")}; touch ${at("console")}`,
    `mount -t devpts -o newinstance,ptmxmode=0666 devpts ${at("pts")}; ln -s pts/ptmx ${at("ptmx")}`,
  ];
}

/** Owner, group and mode of the machine's nodes. */
export function machineDevices(): Record<string, string> {
  return Object.fromEntries(
    Object.keys(nodes).map((name) => {
      const { uid, gid, mode } = statSync(`/dev/${name}`);
      return [`/dev/${name}`, `${uid}:${gid} ${(mode & 0o7777).toString(8)}`];
    }),
  );
}
