import { defaultLimits, type Limits, limitNames, limitTable } from "../policy/limits.ts";
import { DEFAULT_MEMORY, leastMemory } from "../policy/memory.ts";
import { type OperationGroup, operationGroups, type Profile } from "../policy/profile.ts";
import { builtinProfileNames, builtinProfiles } from "../policy/profiles.ts";
import { isStorePath } from "../store/store-path.ts";
import type { Config, ListenConfig } from "./config.ts";
import { nativeSystems } from "./native-systems.ts";
import { suggestion } from "./nearest.ts";
import type { Places } from "./places.ts";
import type { ConfigFile, JailTable, ListenTable, ProfileTable } from "./schema.ts";
import { formatSize } from "./units.ts";

const MiB = 1024 ** 2;
const GiB = 1024 ** 3;

/** The longest path that a Unix socket can have on Linux (`sun_path`, without its final zero). */
const longestSocketPath = 107;
/** What is added to `runtime.dir` for the socket of a sandbox with an id of 32 characters. */
const sandboxSocketTail = `/sandboxes/${"x".repeat(32)}/socket.d/socket`.length;

type Path = readonly (string | number)[];
/** Reports a problem at a key. */
export type Report = (path: Path, message: string) => void;

function limitsFrom(table: Readonly<Record<string, number | undefined>>, base: Limits): Limits {
  return Object.fromEntries(
    limitNames.map((name) => [name, table[limitTable[name].key] ?? base[name]]),
  ) as unknown as Limits;
}

function given<T, U>(value: T | undefined, fallback: U): T | U {
  return value === undefined ? fallback : value;
}

function extendProfile(name: string, table: ProfileTable, base: Profile): Profile {
  return {
    name,
    summary: given(table.summary, `Extends ${base.name}.`),
    operations:
      table.operations === undefined
        ? base.operations
        : (Object.fromEntries(
            operationGroups.map((group) => [group, table.operations?.includes(group) === true]),
          ) as Record<OperationGroup, boolean>),
    fixedOutputs: given(table.fixed_outputs, base.fixedOutputs),
    admitFixedOutputs: given(table.admit_fixed_outputs, base.admitFixedOutputs),
    systems: given(table.systems, base.systems),
    requiredSystemFeatures: given(table.required_system_features, base.requiredSystemFeatures),
    impureEnvVars: given(table.impure_env_vars, base.impureEnvVars),
    weakHashes: given(table.weak_hashes, base.weakHashes),
    substitute: given(table.substitute, base.substitute),
    innerLogs: given(table.inner_logs, base.innerLogs),
    contentAddressed: given(table.content_addressed, base.contentAddressed),
    view: given(table.view, base.view),
    limits: limitsFrom(table.limits ?? {}, base.limits),
  };
}

function resolveProfiles(file: ConfigFile, limits: Limits, report: Report): Map<string, Profile> {
  const profiles = new Map<string, Profile>(Object.entries(builtinProfiles(nativeSystems(), limits)));
  const names = [...builtinProfileNames, ...Object.keys(file.profiles)];

  const resolve = (name: string, askers: readonly string[]): Profile | undefined => {
    const known = profiles.get(name);
    const table = Object.hasOwn(file.profiles, name) ? file.profiles[name] : undefined;
    if (known !== undefined || table === undefined) return known;
    const at = ["profiles", name, "extends"];
    if (askers.includes(name)) {
      report(at, `the profiles extend each other in a circle: ${[...askers, name].join(" → ")}`);
      return undefined;
    }
    if (!names.includes(table.extends)) {
      report(
        at,
        `there is no profile "${table.extends}"${suggestion(
          table.extends,
          names.filter((other) => other !== name),
        )}`,
      );
      return undefined;
    }
    const base = resolve(table.extends, [...askers, name]);
    if (base === undefined) return undefined;
    const profile = extendProfile(name, table, base);
    profiles.set(name, profile);
    return profile;
  };

  for (const name of Object.keys(file.profiles)) {
    if ((builtinProfileNames as readonly string[]).includes(name)) {
      report(["profiles", name], `"${name}" is a built-in profile; give yours another name and extend it`);
    } else if (!/^[a-z][a-z0-9-]{0,31}$/.test(name)) {
      report(
        ["profiles", name],
        "a profile's name has at most 32 lower-case letters, digits and dashes, and starts with a letter",
      );
    } else {
      resolve(name, []);
    }
  }
  return profiles;
}

function checkView(
  view: ListenConfig["view"] | undefined,
  storeDir: string,
  path: Path,
  report: Report,
): void {
  if (view === undefined || typeof view === "string") return;
  view.forEach((item, index) => {
    if (!isStorePath(item, storeDir)) {
      report([...path, index], `${JSON.stringify(item)} is not a store path: expected ${storeDir}/HASH-NAME`);
    }
  });
}

/**
 * Turns a file that fits the schema into the configuration in force, checking what the schema cannot: names of
 * profiles, paths of sockets, keys that contradict each other. Problems go to `report`; where there are any, the
 * result must not be used.
 */
export function resolveConfig(
  name: string | undefined,
  file: ConfigFile,
  places: Places,
  report: Report,
): Config {
  const builtin = builtinProfiles(nativeSystems());
  const limits = limitsFrom(file.limits, defaultLimits);
  const profiles = resolveProfiles(file, limits, report);
  const storeDir = file.upstream.store_dir;

  const profileAt = (profile: string, path: Path): Profile => {
    const found = profiles.get(profile);
    // A profile that exists but is wrong has already been reported.
    if (found === undefined && !Object.hasOwn(file.profiles, profile)) {
      report(path, `there is no profile "${profile}"${suggestion(profile, [...profiles.keys()])}`);
    }
    return found ?? builtin.query;
  };

  const socketPath = (path: string, at: Path): void => {
    if (Buffer.byteLength(path) > longestSocketPath) {
      report(
        at,
        `a Unix socket's path has at most ${longestSocketPath} bytes, but this has ${Buffer.byteLength(path)}`,
      );
    }
  };

  const seen = new Map<string, number>();
  const resolveListen = (table: ListenTable, index: number): ListenConfig => {
    const at = ["listen", index];
    socketPath(table.path, [...at, "path"]);
    const before = seen.get(table.path);
    if (before !== undefined) report([...at, "path"], `listen[${before}] opens the same path`);
    else seen.set(table.path, index);
    checkView(table.view, storeDir, [...at, "view"], report);
    const profile = profileAt(table.profile, [...at, "profile"]);
    if (table.view === "build" && profile.name !== "build" && profile.name !== file.hooks.profile)
      report(
        [...at, "profile"],
        `builds always get hooks.profile ("${file.hooks.profile}"): leave this out, or set hooks.profile`,
      );
    return { path: table.path, profile, view: table.view ?? profile.view, allowUids: table.allow_uids };
  };

  const runtimeDir = file.runtime.dir ?? places.runtimeDir;
  const resolveJail = (jail: string, table: JailTable): ListenConfig => {
    const at = ["jails", jail];
    const path = `${runtimeDir}/shared/jails/${jail}/socket`;
    if (!/^[a-z][a-z0-9-]{0,31}$/.test(jail))
      report(
        at,
        "a jail's name has at most 32 lower-case letters, digits and dashes, and starts with a letter",
      );
    else {
      socketPath(path, at);
      if (seen.has(path)) report(at, `listen[${seen.get(path)}] opens the same path, ${path}`);
    }
    const profile = profileAt(table.profile, [...at, "profile"]);
    return {
      path,
      profile,
      view: "store",
      allowUids: table.allow_uids,
      jail: { name: jail, lifetime: table.lifetime ?? Number.POSITIVE_INFINITY },
    };
  };

  for (const [profile, table] of Object.entries(file.profiles)) {
    checkView(table.view, storeDir, ["profiles", profile, "view"], report);
  }
  // An ordinary user's own broker has no sandboxes of builds there.
  if (Buffer.byteLength(file.runtime.dir ?? "") + sandboxSocketTail > longestSocketPath) {
    report(
      ["runtime", "dir"],
      `is too long for the sockets below it: at most ${longestSocketPath - sandboxSocketTail} bytes`,
    );
  }
  const stateDir = file.runtime.state_dir ?? places.stateDir;
  const ownControlDir = file.runtime.state_dir === undefined ? places.controlDir : undefined;
  const controlDir = file.runtime.control_dir ?? ownControlDir ?? `${stateDir}/control`;
  socketPath(`${controlDir}/socket`, ["runtime", "control_dir"]);
  const [program, ...rest] = file.upstream.command;
  if (program !== undefined && file.upstream.socket !== undefined) {
    report(["upstream", "command"], "upstream.socket is set as well; keep one of the two");
  }
  if (program !== undefined && Object.keys(file.jails).length > 0) {
    report(["upstream", "command"], "[jails] need the daemon of this machine, which keeps their roots");
  }
  const memory = file.runtime.memory ?? DEFAULT_MEMORY;
  for (const { name, limits } of profiles.values()) {
    const least = leastMemory(limits);
    if (memory >= least) continue;
    report(
      ["runtime", "memory"],
      `the longest requests of the profile "${name}" (limits.request_bytes, limits.text_bytes) need at least ${formatSize(Math.ceil(least / MiB) * MiB)}, but it is ${formatSize(memory)}`,
    );
    break;
  }
  const { metrics, web } = file;
  if (metrics.listen?.kind === "tcp" && metrics.token_file === undefined) {
    report(
      ["metrics", "listen"],
      "builds with network access can reach a port: set metrics.token_file as well, or listen on a Unix socket",
    );
  }
  for (const [section, { listen }] of Object.entries({ metrics, web })) {
    if (listen?.kind === "unix") socketPath(listen.path, [section, "listen"]);
  }

  return {
    file: name,
    upstream: {
      socket: file.upstream.socket ?? "/nix/var/nix/daemon-socket/socket",
      command: program === undefined ? undefined : [program, ...rest],
      storeDir,
      nixStore: file.upstream.nix_store,
      allowTrusted: file.upstream.allow_trusted,
      pool: file.upstream.pool,
    },
    runtime: {
      dir: runtimeDir,
      stateDir,
      controlDir,
      adminGroup: file.runtime.admin_group ?? "",
      user: file.runtime.user ?? places.user,
      memory,
      stopGrace: file.runtime.stop_grace,
    },
    listen: [
      ...file.listen.map(resolveListen),
      ...Object.entries(file.jails).map(([jail, table]) => resolveJail(jail, table)),
    ],
    hooks: {
      profile: profileAt(file.hooks.profile, ["hooks", "profile"]),
      allowUids: file.hooks.allow_uids,
      buildUsers: file.hooks.build_users,
      gcrootsDir: file.hooks.gcroots_dir ?? places.gcrootsDir,
      nextPreBuildHook: file.hooks.next_pre_build_hook,
      nextPostBuildHook: file.hooks.next_post_build_hook,
    },
    limits,
    profiles,
    fetch: { privateHosts: file.fetch.private_hosts },
    audit: {
      path: file.audit.path ?? `${stateDir}/audit`,
      jsonLines: file.audit.json_lines,
      retentionDays: file.audit.retention_days,
      maxBytes: file.audit.max_bytes ?? 16 * GiB,
    },
    metrics: { listen: metrics.listen, tokenFile: metrics.token_file },
    web: { listen: web.listen, tokenFile: web.token_file ?? `${stateDir}/web-token` },
    log: { level: file.log.level },
  };
}
