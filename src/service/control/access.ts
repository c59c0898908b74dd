/** Who may use the control channel: root, the service's own user, and the members of a group if one is configured. */
import type { Socket } from "node:net";
import { ConfigError } from "../../config/config-error.ts";
import { socketPeer } from "../../host/socket.ts";
import { UserDatabase } from "../../host/users.ts";

export class ControlAccess {
  private readonly group: string;

  /** @param group its name, "" for none */
  constructor(group: string) {
    this.group = group;
  }

  /** The number of the group; undefined if none is configured. @throws ConfigError when there is no such group */
  get groupId(): number | undefined {
    if (this.group === "") return undefined;
    const id = new UserDatabase().groupId(this.group);
    if (id === undefined)
      throw new ConfigError(undefined, [
        {
          line: undefined,
          key: "runtime.admin_group",
          message: `there is no group "${this.group}": create it, or change the setting`,
        },
      ]);
    return id;
  }

  /** As the kernel reports it, not the peer. @returns why not, or undefined if it may */
  refusal(socket: Socket): string | undefined {
    let uid: number;
    try {
      uid = socketPeer(socket).uid;
    } catch (error) {
      return (error as Error).message;
    }
    if (uid === 0 || uid === process.getuid?.()) return undefined;
    // Looked up each time: members come and go while the service runs.
    const members = this.group === "" ? undefined : new UserDatabase().groupMembers(this.group);
    if (members?.includes(uid)) return undefined;
    return `user ${uid} may not use the control channel: root, the service's user and members of runtime.admin_group may`;
  }
}
