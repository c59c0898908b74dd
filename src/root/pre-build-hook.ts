/**
 * `pre-build-hook DRV [CHROOT]`, called as root by nix-daemon before each build: registers a sandbox for builds that
 * opted in, waits until linker and service are ready for it, and prints the folders to map into the build. The linker does
 * this for the compiled hook, which asks it to; otherwise a program of its own does.
 */
import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { type RootConfig, type ServiceAccount, serviceAccount } from "../contract/root-config.ts";
import { sandboxPlaces } from "../contract/runtime-tree.ts";
import { isChrootPath, isObject, type SandboxRecord } from "../contract/sandbox-record.ts";
import { readTrusted } from "../contract/trusted-file.ts";
import type { Derivation } from "../store/derivation.ts";
import { parseStorePath, type StorePath, storePathBase } from "../store/store-path.ts";
import { clashInside } from "./clashing-paths.ts";
import type { HookCall } from "./hook-call.ts";
import { hasCaller } from "./hook-caller.ts";
import { type OptIn, optIn } from "./opt-in.ts";
import { daemonWorker } from "./process-tree.ts";
import {
  explainMissingSocket,
  forgetRecord,
  judgement,
  recordDurably,
  recordOf,
  refuseSandbox,
  registerSandbox,
} from "./registration.ts";

/** Where every version of Nix looks for the daemon and for its settings. */
const DAEMON_SOCKET_FOLDER = "/nix/var/nix/daemon-socket";
const SETTINGS_FOLDER = "/etc/nix";

const POLL_MS = 2;
const MAX_LINKED = 4096;

/**
 * @param read the derivation of that file name, if it may ask for a sandbox
 * @returns what to print for Nix: "" for a build that did not opt in.
 * @throws any error: the shell script that called us then makes sure that the build finds no daemon, and no other store either.
 */
export async function preBuildHook(
  config: RootConfig,
  { args, parent, setting, warn, isWaiting }: HookCall,
  read: (base: string) => Promise<Derivation | undefined>,
): Promise<string> {
  const [path = "", chrootPath] = args;
  const drvPath = parseStorePath(path, config.storeDir);
  const derivation = await read(storePathBase(drvPath));
  if (!derivation) return "";
  const chroot = relativeChroot(config, drvPath, chrootPath);
  const worker = daemonWorker(parent);
  const answer = optIn(derivation, { hasChroot: chroot !== null, hasWorker: worker !== undefined });
  if (answer.kind === "none") return "";
  const registration = recordOf(config, drvPath, derivation);
  const mayBeOrphan = chroot !== null && worker === undefined;
  if (mayBeOrphan && !hasCaller(parent, Object.values(registration.outputs))) return "";

  const sandboxPaths = setting("sandbox-paths");
  const hiddenSettings = clashInside(SETTINGS_FOLDER, sandboxPaths);
  const hiddenSocket = clashInside(DAEMON_SOCKET_FOLDER, sandboxPaths);
  const hides = hiddenSettings !== undefined && answer.kind === "ok";
  // Nothing that is mapped could reach its clients: Nix ends the build, with a message about a file alone.
  if (hiddenSocket !== undefined) warn(`${path}: ${clashText(hiddenSocket)}`);

  const service = serviceAccount(config.serviceUser);
  const record: SandboxRecord = {
    ...registration,
    ...(await judgement(config, hides ? refuseClash(hiddenSettings) : answer, worker)),
    origin: "hook",
    chroot,
  };
  await recordDurably(config, service, record);
  // Its own program has registered that build by now, or does so soon: of two, the later one would pass for the one that runs.
  if (!isWaiting()) {
    forgetRecord(config, record.id);
    throw new Error("the hook no longer waits for the linker");
  }
  registerSandbox(config, service, record);
  await awaitTaken(config, service, record);
  // Without a chroot there is nothing to map into, and Nix would refuse the lines.
  return chroot === null ? "" : mappings(config, record, hiddenSettings === undefined);
}

/**
 * @returns the chroot relative to the store's folder; `null` when there is none.
 * @throws when Nix names a different place than all known versions.
 */
function relativeChroot(config: RootConfig, drvPath: StorePath, chroot: string | undefined): string | null {
  if (chroot === undefined || chroot === "") return null;
  for (const store of [config.storeReal, config.storeDir]) {
    if (!chroot.startsWith(`${store}/`)) continue;
    const relative = chroot.slice(store.length + 1);
    if (isChrootPath(relative) && relative.startsWith(`${storePathBase(drvPath)}.chroot`)) return relative;
  }
  throw new Error(`the chroot ${chroot} is not where it should be, ${drvPath}.chroot`);
}

/** Waits, for a limited time, for linker and service; turns the sandbox into a refused one if either is not ready. */
async function awaitTaken(config: RootConfig, service: ServiceAccount, record: SandboxRecord): Promise<void> {
  const places = sandboxPlaces(config, record.id);
  const deadline = performance.now() + config.hookWait;
  const linkerMatters = record.kind === "ok";
  let linked: string | undefined;
  let listening = false;
  for (;;) {
    listening ||= existsSync(places.socket);
    if (linkerMatters) linked ??= readTrusted(places.linked, MAX_LINKED);
    if (listening && (linked !== undefined || !linkerMatters)) break;
    if (performance.now() > deadline) break;
    await sleep(POLL_MS);
  }
  const linkerProblem = linkerMatters ? linkingProblem(linked) : undefined;
  if (linkerProblem !== undefined) refuseSandbox(config, service, record, linkerProblem);
  if (!listening) {
    const reason = "the nix-broker service does not run (systemctl status nix-broker)";
    if (linkerMatters && linkerProblem === undefined) refuseSandbox(config, service, record, reason);
    explainMissingSocket(config, record.id, record.reason || linkerProblem || reason);
  }
}

/** The problem that the linker's answer reports. */
function linkingProblem(linked: string | undefined): string | undefined {
  if (linked === undefined)
    return "the linker of nix-broker does not run (systemctl status nix-broker-linker)";
  const value: unknown = JSON.parse(linked);
  if (isObject(value) && value.ok === true) return undefined;
  const error = isObject(value) && typeof value.error === "string" ? value.error : "no reason given";
  return `the linker of nix-broker cannot make paths visible in this sandbox: ${error}`;
}

function mappings(config: RootConfig, record: SandboxRecord, settings: boolean): string {
  const places = sandboxPlaces(config, record.id);
  const lines = ["extra-sandbox-paths", `${DAEMON_SOCKET_FOLDER}=${places.socketFolder}`];
  if (settings) lines.push(`${SETTINGS_FOLDER}=${places.etc}`);
  return `${lines.join("\n")}\n\n`;
}

function clashText(target: string): string {
  return `sandbox-paths in nix.conf puts ${target} into builds, in a folder that nix-broker maps for builds that ask for it; take it out of nix.conf, or map its folder instead`;
}

function refuseClash(target: string): OptIn & { readonly kind: "refused" } {
  return { kind: "refused", reason: clashText(target) };
}
