/** Checks of what runs: upstream, service, linker, audit. */
import { lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import packageJson from "../../package.json" with { type: "json" };
import { verifyAudit } from "../audit/verify.ts";
import type { Config } from "../config/config.ts";
import { currentUser, isOwnControlDir } from "../config/places.ts";
import { socketPeer } from "../host/socket.ts";
import { explained } from "../sandbox/upstream/connection.ts";
import { UpstreamPool } from "../sandbox/upstream/pool.ts";
import { LinkerClient } from "../service/builds/linker-client.ts";
import { askService, ControlError } from "../service/control/control.ts";
import type { LinkerReport, StatusReport } from "../service/control/messages.ts";
import { connectTo, missingGroup, upstreamName } from "../service/upstream.ts";
import { type Finding, ok, problem, unseen, warning } from "./doctor-finding.ts";
import type { UpstreamNix } from "./doctor-lix.ts";

const PATIENCE_MS = 2000;
/** Verifying more would take minutes; there is a command for that. */
const MOST_VERIFIED_BYTES = 512 * 1024 ** 2;

/** What the service reports about itself, and whether it answers. */
export async function checkService(
  config: Config,
): Promise<{ status: StatusReport | undefined; findings: Finding[] }> {
  const topic = "service";
  try {
    const status = await askService(config.runtime.controlDir, "status", {});
    const { version, configFile, pid } = status.service;
    const findings = [ok(topic, `nix-broker ${version} runs, pid ${pid}`)];
    if (version !== packageJson.version)
      findings.push(
        warning(
          topic,
          `it is still of version ${version}, and this program of ${packageJson.version}`,
          "systemctl restart nix-broker nix-broker-linker: running builds keep their sandboxes",
        ),
      );
    if (configFile !== (config.file ?? null))
      findings.push(
        warning(
          topic,
          `it reads ${configFile ?? "no configuration file"}, and this program ${config.file ?? "none"}`,
          "name the same file with --config",
        ),
      );
    return { status, findings };
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    const denied = (error.cause as NodeJS.ErrnoException | undefined)?.code === "EACCES";
    const finding =
      denied || error.code === "refused"
        ? unseen(topic, "whether it runs")
        : problem(
            topic,
            error.message,
            isOwnControlDir(config.runtime.controlDir)
              ? "start it: nix-broker serve"
              : "systemctl start nix-broker, and see journalctl -u nix-broker",
          );
    return { status: undefined, findings: [finding] };
  }
}

/** As the service reports it if it answers, because the service's rights matter; otherwise as this user sees it. */
export async function checkUpstream(
  config: Config,
  status: StatusReport | undefined,
): Promise<{ nix: UpstreamNix | undefined; finding: Finding }> {
  const topic = "upstream";
  const at = upstreamName(config.upstream);
  const advice = "systemctl status nix-daemon.socket nix-daemon.service; upstream.socket names its socket";
  if (status) {
    const { error, nixVersion, protocol } = status.upstream;
    if (error !== null) return { nix: undefined, finding: problem(topic, `${at}: ${error}`, advice) };
    const trust = config.upstream.allowTrusted
      ? "whether it trusts the service was not checked"
      : "it does not trust the service";
    const finding = ok(
      topic,
      `${nixVersion === null ? "Nix" : `Nix ${nixVersion}`}, protocol ${protocol}, at ${at}; ${trust}`,
    );
    const minor = Number(protocol?.replace(/^1\./, ""));
    return { nix: { minor, nixVersion: nixVersion ?? undefined }, finding };
  }
  const { upstream } = config;
  const pool = new UpstreamPool({
    connect: connectTo(upstream),
    storeDir: upstream.storeDir,
    size: 0,
    // Root is trusted; this only checks whether anybody answers.
    allowTrusted: true,
  });
  try {
    const nix = await pool.probe();
    const finding = ok(
      topic,
      `${nix.nixVersion === undefined ? "Nix" : `Nix ${nix.nixVersion}`}, protocol 1.${nix.minor}, at ${at}`,
    );
    return { nix, finding };
  } catch (error) {
    const group = missingGroup(upstream, error as Error);
    const joining = group && `as root: usermod -aG ${group} ${currentUser().name}, and log in again`;
    return {
      nix: undefined,
      finding: problem(topic, `${at}: ${explained(error as Error)}`, joining ?? advice),
    };
  } finally {
    pool.close();
  }
}

/** @param needed whether builds are served; otherwise nothing needs the linker */
export async function checkLinker(
  { runtime }: Config,
  status: StatusReport | undefined,
  needed: boolean,
): Promise<Finding[]> {
  if (!needed) return [];
  const topic = "linker";
  const path = `${runtime.dir}/linker.sock`;
  const report = status?.linker ?? (await askLinker(path));
  if (report === undefined) return [unseen(topic, path)];
  const { error, sandboxes } = report;
  if (error === null)
    return [ok(topic, `it serves ${sandboxes} sandboxes, reaches upstream, and can write to the store`)];
  const readOnly = error.includes("read-only");
  return [
    problem(
      topic,
      `${error}; builds that opt in are refused`,
      readOnly
        ? "start it by its unit, which gives it a mount namespace of its own and --remount-store"
        : "systemctl start nix-broker-linker, and see journalctl -u nix-broker-linker",
    ),
  ];
}

/** @returns undefined if this user may not ask it */
async function askLinker(path: string): Promise<Pick<LinkerReport, "error" | "sandboxes"> | undefined> {
  try {
    lstatSync(path);
    if (!(await mayConnect(path))) return undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === "EACCES" ? undefined : { error: `it does not run: ${message}`, sandboxes: null };
  }
  const client = new LinkerClient(path, { patience: PATIENCE_MS });
  try {
    const { store, upstream, sandboxes } = await client.status();
    return { error: [store, upstream].find((state) => state !== "ok") ?? null, sandboxes };
  } catch (error) {
    return { error: (error as Error).message, sandboxes: null };
  } finally {
    client.close();
  }
}

/** @throws the system's error, other than EACCES */
function mayConnect(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", (error: NodeJS.ErrnoException) =>
      error.code === "EACCES" ? resolve(false) : reject(error),
    );
  });
}

export function checkAudit({ audit }: Config, status: StatusReport | undefined): Finding[] {
  const topic = "audit";
  const findings: Finding[] = [];
  if (status && status.audit.error !== null)
    findings.push(
      problem(
        topic,
        `it cannot be written, so requests are refused: ${status.audit.error}`,
        `make room below ${audit.path}; the service goes on by itself`,
      ),
    );
  if (status && status.audit.lost > 0)
    findings.push(
      problem(
        topic,
        `${status.audit.lost} records were lost since the service started`,
        "see its log for when and why",
      ),
    );
  try {
    const bytes = readdirSync(audit.path).reduce(
      (sum, name) => sum + statSync(join(audit.path, name)).size,
      0,
    );
    if (bytes > MOST_VERIFIED_BYTES)
      return [...findings, ok(topic, "it is too large to be verified in passing: nix-broker audit verify")];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT")
      return [...findings, ok(topic, `${audit.path}: nothing was recorded yet`)];
    return [...findings, unseen(topic, audit.path)];
  }
  const result = verifyAudit(audit.path);
  findings.push(
    result.ok
      ? ok(topic, `${result.records} records, the chain is whole`)
      : problem(
          topic,
          `it does not verify: ${result.problem}`,
          "somebody changed it, or the disk did: keep a copy, and see nix-broker audit verify",
        ),
  );
  return findings;
}

/** When the process that listens on upstream's socket started; undefined if that is unknown, or it is systemd. */
export function daemonStarted({ upstream }: Config): Promise<number | undefined> {
  if (upstream.command) return Promise.resolve(undefined);
  return new Promise((resolve) => {
    const socket = connect(upstream.socket, () => {
      resolve(startedAt(socketPeer(socket).pid));
      socket.destroy();
    });
    socket.on("error", () => resolve(undefined));
  });
}

/** Field 22 of proc_pid_stat(5), in ticks of 10 ms since boot. */
function startedAt(pid: number): number | undefined {
  if (pid <= 1) return undefined;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const ticks = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]);
    const boot = Number(/^btime (\d+)$/m.exec(readFileSync("/proc/stat", "latin1"))?.[1]);
    // The boot time is only known in whole seconds.
    return (boot + 1) * 1000 + ticks * 10;
  } catch {
    return undefined;
  }
}
