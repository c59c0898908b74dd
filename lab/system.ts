import { copyFileSync, existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { LabError } from "./command.ts";

/** A user of the lab: the name is in every lab system's /etc/passwd, the numbers are the machine's. */
export interface LabUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
  readonly home: string;
}

/** The users that every lab system has, besides its build users. None of them is a build user. */
export const labUsers: readonly LabUser[] = [
  { name: "root", uid: 0, gid: 0, home: "/root" },
  { name: "nix-broker", uid: 41_900, gid: 41_900, home: "/var/lib/nix-broker" },
  { name: "alice", uid: 41_901, gid: 41_901, home: "/home/alice" },
  { name: "nobody", uid: 65_534, gid: 65_534, home: "/nonexistent" },
];

/** @throws LabError if there is no such user in the lab. */
export function labUser(name: string): LabUser {
  const user = labUsers.find((one) => one.name === name);
  if (user !== undefined) return user;
  throw new LabError(`The lab has no user "${name}", only ${labUsers.map((one) => one.name).join(", ")}.`);
}

const uidsPerSlot = 64;

/**
 * The first uid, and at once the gid, of a daemon's build users. Before and after a build Nix kills every
 * process of its build user, so no two daemons of one machine may share any.
 */
export function buildUserBase(slot: number): number {
  return 42_000 + slot * uidsPerSlot;
}

/** @throws LabError if a daemon cannot have that many build users. */
export function checkBuildUsers(count: number): void {
  if (Number.isInteger(count) && count >= 0 && count < uidsPerSlot) return;
  throw new LabError(`A daemon of the lab can have 0 to ${uidsPerSlot - 1} build users, not ${count}.`);
}

/** Writes the user database and what else programs look for in /etc. */
export function writeEtc(etc: string, slot: number, buildUsers: number): void {
  const base = buildUserBase(slot);
  const builders = Array.from({ length: buildUsers }, (_, index) => ({
    name: `nixbld${index + 1}`,
    uid: base + 1 + index,
    gid: base,
    home: "/var/empty",
  }));
  const users = [...labUsers, ...builders];
  const passwd = users.map(({ name, uid, gid, home }) => `${name}:x:${uid}:${gid}::${home}:/bin/bash\n`);
  const groups = [
    ...labUsers.map(({ name, gid }) => `${name === "nobody" ? "nogroup" : name}:x:${gid}:\n`),
    `nixbld:x:${base}:${builders.map(({ name }) => name).join(",")}\n`,
  ];
  writeFileSync(join(etc, "passwd"), passwd.join(""));
  writeFileSync(join(etc, "group"), groups.join(""));
  writeFileSync(join(etc, "hosts"), "127.0.0.1 localhost\n::1 localhost\n");
  for (const name of ["resolv.conf", "services", "protocols"]) {
    if (existsSync(`/etc/${name}`)) copyFileSync(`/etc/${name}`, join(etc, name));
  }
}
