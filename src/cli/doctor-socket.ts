/** Whether the service's user may use the nix-daemon's socket: Debian's is in a folder for the members of a group. */
import { lstatSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Config } from "../config/config.ts";
import type { UserDatabase } from "../host/users.ts";
import type { StatusReport } from "../service/control/messages.ts";
import { type Finding, ok, problem, unseen } from "./doctor-finding.ts";

const TOPIC = "daemon socket";
const ENTER = 1;
const WRITE = 2;

/** A group whose membership would give what a user lacks. */
interface Lacking {
  readonly path: string;
  readonly stats: Stats;
}

/** @param uid the service's user */
export function checkSocket(
  { upstream, runtime }: Config,
  uid: number,
  users: UserDatabase,
  status: StatusReport | undefined,
): Finding[] {
  if (upstream.command) return [];
  const { socket } = upstream;
  const member = (gid: number): boolean => users.groupMembers(groupName(gid, users))?.includes(uid) === true;
  const allows = ({ uid: owner, gid, mode }: Stats, bit: number): boolean => {
    if (owner === uid) return (mode & (bit << 6)) !== 0;
    return (mode & (member(gid) ? bit << 3 : bit)) !== 0;
  };
  let lacking: Lacking | undefined;
  let byGroup = "";
  try {
    for (const [path, bit] of placesOf(socket)) {
      const stats = statSync(path);
      if (!allows(stats, bit)) lacking ??= { path, stats };
      else if ((stats.mode & bit) === 0 && stats.uid !== uid) byGroup = groupName(stats.gid, users);
    }
  } catch (error) {
    // That nothing is there is told where upstream is asked.
    return (error as NodeJS.ErrnoException).code === "EACCES" ? [unseen(TOPIC, socket)] : [];
  }
  const reached = status?.upstream.error === null;
  const denied = status?.upstream.error?.includes("EACCES") === true;
  if (!lacking) {
    if (byGroup !== "" && denied)
      return [
        problem(
          TOPIC,
          `${runtime.user} has joined the group ${byGroup} since the service started`,
          "systemctl restart nix-broker",
        ),
      ];
    return [
      ok(TOPIC, byGroup === "" ? "every user may connect" : `${runtime.user} may connect (${byGroup})`),
    ];
  }
  // A unit may give the service the group by itself (SupplementaryGroups=).
  if (reached) return [ok(TOPIC, "the service may connect")];
  return [lackingProblem(lacking, runtime.user, users)];
}

function lackingProblem({ path, stats }: Lacking, user: string, users: UserDatabase): Finding {
  const group = groupName(stats.gid, users);
  const mode = (stats.mode & 0o7777).toString(8);
  return problem(
    TOPIC,
    `${path} is for its owner and the group ${group} alone (mode ${mode}), and ${user} is not a member`,
    `usermod -aG ${group} ${user}, and systemctl restart nix-broker`,
  );
}

/** What a client has to pass on the way to a socket, and the bit that lets it. */
function placesOf(socket: string): [string, number][] {
  const places: [string, number][] = lstatSync(socket, { throwIfNoEntry: false }) ? [[socket, WRITE]] : [];
  for (let folder = dirname(socket); folder !== "/"; folder = dirname(folder))
    places.unshift([folder, ENTER]);
  return places;
}

function groupName(gid: number, users: UserDatabase): string {
  return users.groupName(gid) ?? String(gid);
}
