/** Checks of the users: the service's, and what the nix-daemon lets it do. */
import { availableParallelism } from "node:os";
import type { Config } from "../config/config.ts";
import type { UserDatabase } from "../host/users.ts";
import { type Finding, ok, problem, warning } from "./doctor-finding.ts";
import type { NixSettings } from "./doctor-nix-settings.ts";

/** The service's user by number; undefined if there is no such user. */
export function serviceUid({ runtime }: Config, users: UserDatabase): number | undefined {
  return users.userId(runtime.user.replace(/:.*/, ""));
}

export function checkUsers(config: Config, settings: NixSettings, users: UserDatabase): Finding[] {
  const { user } = config.runtime;
  const uid = serviceUid(config, users);
  if (uid === undefined)
    return [
      problem(
        "service user",
        `there is no user "${user}"`,
        `useradd --system --user-group --home-dir /var/lib/nix-broker --shell /usr/sbin/nologin ${user}, or set runtime.user`,
      ),
    ];
  if (uid === 0 && !config.upstream.allowTrusted)
    return [
      problem(
        "service user",
        "it is root, which nix-daemon trusts",
        "create a system user for it (runtime.user)",
      ),
    ];
  return [
    ok("service user", `${user} is user ${uid}`),
    checkBuildUser(config, settings, uid, users),
    ...checkDaemonsLists(config, settings, uid, users),
    ...checkBuilders(config, users),
  ];
}

/** What nix.conf says of a user. @param config names the user, too: `runtime.user` */
export function checkDaemonsLists(
  config: Config,
  settings: NixSettings,
  uid: number,
  users: UserDatabase,
): Finding[] {
  const { user } = config.runtime;
  const listed = (entries: readonly string[]): string | undefined =>
    entries.find((entry) => entry === "*" || entry === user || isMember(entry, uid, users));
  return [checkAllowed(user, settings, listed), checkTrusted(config, settings, listed)];
}

function isMember(entry: string, uid: number, users: UserDatabase): boolean {
  return entry.startsWith("@") && users.groupMembers(entry.slice(1))?.includes(uid) === true;
}

function checkBuildUser(config: Config, settings: NixSettings, uid: number, users: UserDatabase): Finding {
  const group = settings.get("build-users-group", "nixbld");
  if (group !== "" && users.groupMembers(group)?.includes(uid))
    return problem(
      "build users",
      `the service's user is a member of ${group}: nix-daemon refuses build users, and kills their processes`,
      `take ${config.runtime.user} out of ${group} (gpasswd -d ${config.runtime.user} ${group})`,
    );
  return ok(
    "build users",
    group === "" ? "there is no group of build users" : `the service's user is not a member of ${group}`,
  );
}

function checkAllowed(
  user: string,
  settings: NixSettings,
  listed: (entries: readonly string[]) => string | undefined,
): Finding {
  const by = listed(settings.list("allowed-users", "*")) ?? listed(settings.list("trusted-users", "root"));
  if (by !== undefined) return ok("allowed-users", `nix-daemon lets ${user} in (${by})`);
  return problem(
    "allowed-users",
    `nix-daemon does not let ${user} in`,
    `add ${user} to allowed-users in nix.conf and restart nix-daemon`,
  );
}

function checkTrusted(
  { runtime, upstream }: Config,
  settings: NixSettings,
  listed: (entries: readonly string[]) => string | undefined,
): Finding {
  const by = listed(settings.list("trusted-users", "root"));
  if (by === undefined) return ok("trusted-users", `nix-daemon does not trust ${runtime.user}`);
  const text = `nix-daemon trusts ${runtime.user} (${by}), so there is no second line of defence behind a bug in the broker`;
  return upstream.allowTrusted
    ? warning("trusted-users", text, "upstream.allow_trusted permits it; use it for private daemons only")
    : problem("trusted-users", text, `take ${by} out of trusted-users in nix.conf and restart nix-daemon`);
}

/** Who may use the socket of a build. */
function checkBuilders({ hooks }: Config, users: UserDatabase): Finding[] {
  try {
    const { anyone, uids } = users.resolve(hooks.allowUids);
    if (anyone)
      return [
        warning(
          "hooks.allow_uids",
          "any user who can reach the socket of a build may use it",
          "name the build users, such as @nixbld",
        ),
      ];
    const count = hooks.buildUsers ?? uids.size;
    return count < 2
      ? [
          problem(
            "hooks.allow_uids",
            `there is ${count} build user: none would be left for inner builds`,
            "create more build users",
          ),
        ]
      : [ok("hooks.allow_uids", `${uids.size} build users; ${count - 1} builds with inner builds at once`)];
  } catch (error) {
    return [
      warning("hooks.allow_uids", (error as Error).message, "name the users that build in hooks.allow_uids"),
    ];
  }
}

/**
 * Each outer build takes a build user, and needs another one for its inner builds. If one client alone can start as
 * many builds as there are build users, the newest outer build gets no inner builds, and fails: by chance.
 */
export function checkJobs({ hooks }: Config, settings: NixSettings, users: UserDatabase): Finding[] {
  const count = hooks.buildUsers ?? countOf(hooks.allowUids, users);
  if (count === undefined) return [];
  const setting = settings.get("max-jobs", "1");
  const jobs = setting === "auto" ? availableParallelism() : Number(setting);
  const named = setting === "auto" ? `auto (${jobs} here)` : setting;
  if (jobs < count) return [ok("max-jobs", `${named}, with ${count} build users`)];
  return [
    warning(
      "max-jobs",
      `it is ${named}, and there are ${count} build users: if as many outer builds run at once, none is left for their inner builds, and the newest outer build fails`,
      `set max-jobs in nix.conf to less than ${count} and restart nix-daemon, or create more build users; each client of nix-daemon may run max-jobs builds, so with several clients leave room for all of them`,
    ),
  ];
}

/** How many build users there are; undefined if Nix alone knows, or if they cannot be found out. */
function countOf(allowUids: readonly string[], users: UserDatabase): number | undefined {
  try {
    const { uids } = users.resolve(allowUids);
    return uids.size > 0 ? uids.size : undefined;
  } catch {
    // `checkBuilders` reports it.
    return undefined;
  }
}
