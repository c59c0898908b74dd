/** What a configuration names that this machine does not have, and what serves nobody. */
import { isDeepStrictEqual } from "node:util";
import type { Config } from "../config/config.ts";
import { UserDatabase, UserDatabaseError } from "../host/users.ts";

/** A key, and what to know about it. */
export interface ConfigWarning {
  readonly key: string;
  readonly message: string;
}

/** The build users' group that hooks.allow_uids is by default: where Nix is still to come, it need not be there. */
const BUILD_USERS = ["@nixbld"];

export function configWarnings({ runtime, listen, hooks, profiles }: Config): ConfigWarning[] {
  const users = new UserDatabase();
  const warnings: ConfigWarning[] = [];
  const look = (key: string, allowed: readonly string[]): void => {
    try {
      users.resolve(allowed);
    } catch (error) {
      if (!(error instanceof UserDatabaseError)) throw error;
      warnings.push({ key, message: error.message });
    }
  };
  if (runtime.adminGroup !== "") look("runtime.admin_group", [`@${runtime.adminGroup}`]);
  for (const [index, { allowUids, jail }] of listen.entries())
    look(jail ? `jails.${jail.name}.allow_uids` : `listen[${index}].allow_uids`, allowUids);
  if (!isDeepStrictEqual(hooks.allowUids, BUILD_USERS)) look("hooks.allow_uids", hooks.allowUids);
  for (const { name, limits } of profiles.values())
    if (limits.connections === 0)
      warnings.push({
        key: "limits.connections",
        message: `It is 0 in the profile "${name}", so none of its clients can connect.`,
      });
  return warnings;
}
