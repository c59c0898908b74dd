/** Checks of the folders that service and root programs share, and that both read the same configuration. */
import { lstatSync, readFileSync, type Stats } from "node:fs";
import type { Config } from "../config/config.ts";
import { rootConfigText } from "../config/root-config.ts";
import { type Finding, ok, problem, unseen, warning } from "./doctor-finding.ts";

const ROOT = 0;
const OTHERS_MAY_WRITE = 0o022;

interface Place {
  readonly path: string;
  readonly what: string;
  readonly owner: number;
  /** Bits that may not be set. */
  readonly forbidden: number;
  /** What it means if it does not exist. */
  readonly missing: Finding;
}

/** @param uid the service's user, @param perBuild whether hooks or a shared socket serve builds */
export function checkFolders(config: Config, uid: number, perBuild: boolean): Finding[] {
  const { runtime, hooks, audit } = config;
  const later = (path: string, maker: string): Finding =>
    ok("folders", `${path}: does not exist yet; ${maker} creates it`);
  const rootPlaces: Place[] = [
    [runtime.dir, "the runtime folder"] as const,
    [`${runtime.dir}/sandboxes`, "the folder of sandboxes"] as const,
    [hooks.gcrootsDir, "the folder of roots"] as const,
  ].map(([path, what]) => ({
    path,
    what,
    owner: ROOT,
    forbidden: OTHERS_MAY_WRITE,
    missing: later(path, "the linker or the first hook"),
  }));
  const ownPlaces: Place[] = [
    { path: runtime.stateDir, what: "the state folder", forbidden: OTHERS_MAY_WRITE },
    { path: audit.path, what: "the folder of the audit", forbidden: 0o027 },
    { path: runtime.controlDir, what: "the folder of the control socket", forbidden: 0o027 },
  ].map((place) => ({ ...place, owner: uid, missing: later(place.path, "the service") }));
  return [...(perBuild ? rootPlaces : []), ...ownPlaces].map(checkPlace);
}

function checkPlace({ path, what, owner, forbidden, missing }: Place): Finding {
  let stats: Stats;
  try {
    stats = lstatSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "ENOENT" || code === "ENOTDIR" ? missing : unseen("folders", path);
  }
  if (!stats.isDirectory()) return problem("folders", `${path} is not a folder`, "move it away");
  if (stats.uid !== owner)
    return problem(
      "folders",
      `${what}, ${path}, belongs to user ${stats.uid}, and must belong to ${owner}`,
      `chown ${owner} ${path}`,
    );
  if ((stats.mode & forbidden) !== 0)
    return problem(
      "folders",
      `${what}, ${path}, has mode ${(stats.mode & 0o7777).toString(8)}: others than its owner may write or read there`,
      `chmod ${(stats.mode & 0o7777 & ~forbidden).toString(8)} ${path}`,
    );
  return ok("folders", `${path} is ${what}`);
}

/** Compares what `check-config --root-subset` would write with what root's programs read. */
export function checkRootConfig(config: Config): Finding[] {
  const topic = "root.conf";
  const file = process.env.NIX_BROKER_ROOT_CONFIG ?? "/etc/nix-broker/root.conf";
  const advice = `nix-broker check-config --root-subset > ${file}, and restart the linker`;
  let text = "";
  try {
    text = readFileSync(file, "utf8");
    const { uid, mode } = lstatSync(file);
    if (uid !== ROOT || (mode & OTHERS_MAY_WRITE) !== 0)
      return [
        problem(
          topic,
          `${file} can be changed by users other than root, so root's programs refuse it`,
          `chown root ${file} and chmod go-w ${file}`,
        ),
      ];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") return [unseen(topic, file)];
  }
  const read = valuesIn(text);
  const wanted = valuesIn(rootConfigText(config));
  const differences = [...wanted].filter(([key, value]) => {
    // The service's own folder; root's programs do not use it.
    if (key === "state_dir") return false;
    return (read.get(key) ?? defaultOf(key)) !== value;
  });
  if (differences.length === 0) return [ok(topic, "root's programs and the service read the same")];
  return differences.map(([key, value]) =>
    problem(
      topic,
      `${key} is "${read.get(key) ?? defaultOf(key)}" for root's programs, and "${value}" for the service`,
      advice,
    ),
  );
}

/** As in root's programs, where the file says nothing. */
const rootDefaults: Readonly<Record<string, string>> = {
  store_dir: "/nix/store",
  upstream_socket: "/nix/var/nix/daemon-socket/socket",
  nix_store: "nix-store",
  runtime_dir: "/run/nix-broker",
  gcroots_dir: "/nix/var/nix/gcroots/nix-broker",
  service_user: "nix-broker",
};
function defaultOf(key: string): string {
  return rootDefaults[key] ?? "";
}

function valuesIn(text: string): Map<string, string> {
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)] as const),
  );
}

/** Whether settings that the daemon read when it started have changed since. */
export function checkRestarted(changedMs: number, daemonStartedMs: number | undefined): Finding[] {
  if (daemonStartedMs === undefined) return [];
  return changedMs > daemonStartedMs
    ? [
        warning(
          "nix-daemon",
          "nix.conf was changed after nix-daemon started, which reads it then",
          "systemctl restart nix-daemon",
        ),
      ]
    : [ok("nix-daemon", "it has read nix.conf as it is now")];
}
