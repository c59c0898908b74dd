/** Names of users and groups to numbers: from /etc/passwd and /etc/group, otherwise from `getent` (NSS). */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

export class UserDatabaseError extends Error {
  override readonly name = "UserDatabaseError";
}

/** Who may connect, as numbers. */
export interface AllowedUids {
  /** Anyone who reaches the socket. */
  readonly anyone: boolean;
  readonly uids: ReadonlySet<number>;
}

interface User {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

interface Group {
  readonly name: string;
  readonly gid: number;
  readonly members: readonly string[];
}

/** passwd(5): name:password:uid:gid:… */
function parseUser(line: string): User | undefined {
  const [name, , uid, gid] = line.split(":");
  if (name === undefined || !/^\d+$/.test(uid ?? "") || !/^\d+$/.test(gid ?? "")) return undefined;
  return { name, uid: Number(uid), gid: Number(gid) };
}

/** group(5): name:password:gid:member,member,… */
function parseGroup(line: string): Group | undefined {
  const [name, , gid, members] = line.split(":");
  if (name === undefined || !/^\d+$/.test(gid ?? "")) return undefined;
  return { name, gid: Number(gid), members: (members ?? "").split(",").filter((member) => member !== "") };
}

function readLines(file: string): string[] {
  try {
    return readFileSync(file, "utf8").split("\n");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** A line of `getent DATABASE KEY`; undefined when it knows none or is not installed. */
function getent(database: "passwd" | "group", key: string): string | undefined {
  try {
    const text = execFileSync("getent", ["--", database, key], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
    return text.split("\n")[0];
  } catch {
    return undefined;
  }
}

function isPresent<T>(value: T | undefined): value is T {
  return value !== undefined;
}

/** The users and groups of this machine as they were when it was made. */
export class UserDatabase {
  private readonly users: User[];
  private readonly groups: Group[];

  /** `folder` holds `passwd` and `group`. */
  constructor(folder = "/etc") {
    this.users = readLines(`${folder}/passwd`).map(parseUser).filter(isPresent);
    this.groups = readLines(`${folder}/group`).map(parseGroup).filter(isPresent);
  }

  /** The id of a user given by name or number; undefined if there is no such name. */
  userId(user: string): number | undefined {
    if (/^\d+$/.test(user)) return Number(user);
    return this.user(user)?.uid;
  }

  /** The id of a group given by name or number; undefined if there is no such name. */
  groupId(group: string): number | undefined {
    if (/^\d+$/.test(group)) return Number(group);
    return this.group(group)?.gid;
  }

  /** The name of a group of /etc/group; undefined if it has none. */
  groupName(gid: number): string | undefined {
    return this.groups.find((group) => group.gid === gid)?.name;
  }

  /**
   * The ids of a group's members: those it lists, and the users of /etc/passwd whose primary group it is.
   * Undefined if there is no such group. A listed member that does not exist is left out.
   */
  groupMembers(name: string): number[] | undefined {
    const group = this.group(name);
    if (group === undefined) return undefined;
    const listed = group.members.map((member) => this.user(member)?.uid).filter(isPresent);
    const primary = this.users.filter((user) => user.gid === group.gid).map((user) => user.uid);
    return [...new Set([...listed, ...primary])];
  }

  /**
   * Resolves the form of the configuration: users, `@groups`, numbers, or `*` for anyone.
   * @throws UserDatabaseError naming the entry that is unknown.
   */
  resolve(entries: readonly string[]): AllowedUids {
    const uids = new Set<number>();
    for (const entry of entries) {
      if (entry === "*") return { anyone: true, uids: new Set() };
      if (entry.startsWith("@")) {
        const members = this.groupMembers(entry.slice(1));
        if (members === undefined) {
          throw new UserDatabaseError(
            `There is no group "${entry.slice(1)}" on this machine; create it or change the setting.`,
          );
        }
        for (const uid of members) uids.add(uid);
      } else {
        const uid = this.userId(entry);
        if (uid === undefined) {
          throw new UserDatabaseError(
            `There is no user "${entry}" on this machine; create it or change the setting.`,
          );
        }
        uids.add(uid);
      }
    }
    return { anyone: false, uids };
  }

  private user(name: string): User | undefined {
    const known = this.users.find((user) => user.name === name);
    if (known !== undefined) return known;
    const line = getent("passwd", name);
    return line === undefined ? undefined : parseUser(line);
  }

  private group(name: string): Group | undefined {
    const known = this.groups.find((group) => group.name === name);
    if (known !== undefined) return known;
    const line = getent("group", name);
    return line === undefined ? undefined : parseGroup(line);
  }
}
