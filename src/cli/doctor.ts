import { Command } from "commander";
import { escapeText, jsonText } from "../audit/escape.ts";
import type { Config } from "../config/config.ts";
import { ConfigError, inOneLine } from "../config/config-error.ts";
import { loadConfig, parseConfig } from "../config/load.ts";
import { currentUser, isOwnControlDir, ownPlaces } from "../config/places.ts";
import { UserDatabase } from "../host/users.ts";
import { type Finding, ok, problem, warning } from "./doctor-finding.ts";
import { checkFolders, checkRestarted, checkRootConfig } from "./doctor-folders.ts";
import { checkJail } from "./doctor-jail.ts";
import { checkLix } from "./doctor-lix.ts";
import { checkNix } from "./doctor-nix.ts";
import { NixSettings } from "./doctor-nix-settings.ts";
import { checkNoNix } from "./doctor-no-nix.ts";
import { checkAudit, checkLinker, checkService, checkUpstream, daemonStarted } from "./doctor-service.ts";
import { checkSocket } from "./doctor-socket.ts";
import { checkDaemonsLists, checkJobs, checkUsers, serviceUid } from "./doctor-users.ts";
import { configOption, jsonOption } from "./options.ts";
import { exitCodes } from "./outcome.ts";

interface Options {
  readonly config?: string;
  readonly json?: true;
}

/** The configuration; if it cannot be used, the defaults, so that the rest can be checked all the same. */
async function loadOrDefaults(path: string | undefined): Promise<{ config: Config; findings: Finding[] }> {
  try {
    return { config: await loadConfig({ path }), findings: [] };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const finding = problem(
      "configuration",
      inOneLine(error.message),
      "correct it; the checks below use the defaults",
    );
    return { config: await parseConfig(""), findings: [finding] };
  }
}

function checkEnvironment(perBuild: boolean): Finding[] {
  if (!perBuild || process.getuid?.() !== 0 || process.env.NIX_REMOTE === "daemon") return [];
  return [
    warning(
      "NIX_REMOTE",
      "root's own Nix commands open the store directly, so builds that opt in are refused",
      "set NIX_REMOTE=daemon in root's environment",
    ),
  ];
}

/** As said to somebody who makes jails: what does not run is a matter for those who administer the machine. */
function unneeded(findings: readonly Finding[]): Finding[] {
  return findings.map((finding) =>
    finding.state === "problem"
      ? warning(
          finding.topic,
          `${finding.text.replace(/\.$/, "")}; jails do not need it`,
          `as root: ${finding.advice}`,
        )
      : finding,
  );
}

/** Everything that `nix-broker doctor` checks, in the order in which it is printed. */
export async function diagnose(configPath: string | undefined): Promise<Finding[]> {
  const { config, findings } = await loadOrDefaults(configPath);
  const isOrdinary = ownPlaces(process.env, currentUser()) !== undefined;
  const namesConfig = configPath !== undefined || Boolean(process.env.NIX_BROKER_CONFIG);
  // Jails are not made with a configuration that cannot be used.
  const makesJails = isOrdinary && !namesConfig && findings.length === 0;
  const settings = new NixSettings();
  const users = new UserDatabase();
  const uid = serviceUid(config, users);
  const perBuild =
    settings.get("pre-build-hook") !== "" || config.listen.some(({ view }) => view === "build");
  const service = await checkService(config);
  const noNix = checkNoNix(config, settings);
  if (noNix)
    return [
      ...findings,
      noNix,
      ...service.findings,
      ...(config.upstream.command ? [(await checkUpstream(config, service.status)).finding] : []),
      ...checkAudit(config, service.status),
      ...(uid === undefined ? [] : checkFolders(config, uid, perBuild)),
      ...(perBuild ? checkRootConfig(config) : []),
    ];
  const upstream = await checkUpstream(config, service.status);
  if (
    makesJails &&
    service.status === undefined &&
    isOwnControlDir(config.runtime.controlDir) &&
    config.listen.length === 0
  )
    return [
      ...findings,
      ok("service", "no broker of your own runs (nix-broker serve), and a jail needs none"),
      upstream.finding,
      ...checkLix(upstream.nix, settings),
      ...checkDaemonsLists(config, settings, currentUser().uid, users),
      ...checkJail(config, problem),
    ];
  const running = [...service.findings, ...(await checkLinker(config, service.status, perBuild))];
  return [
    ...findings,
    ...(makesJails ? unneeded(running) : running),
    upstream.finding,
    ...checkLix(upstream.nix, settings),
    ...checkAudit(config, service.status),
    ...checkNix(config, settings),
    ...checkRestarted(settings.changed, await daemonStarted(config)),
    ...checkEnvironment(perBuild),
    ...checkUsers(config, settings, users),
    ...(uid === undefined ? [] : checkSocket(config, uid, users, service.status)),
    ...(perBuild ? checkJobs(config, settings, users) : []),
    ...(uid === undefined ? [] : checkFolders(config, uid, perBuild)),
    ...(perBuild ? checkRootConfig(config) : []),
    ...(makesJails ? checkJail(await loadConfig({ own: true }), warning) : []),
  ];
}

const marks: Readonly<Record<Finding["state"], string>> = {
  ok: "ok      ",
  warning: "WARNING ",
  problem: "PROBLEM ",
};

function lineOf({ state, topic, text, advice }: Finding): string {
  const line = `${marks[state]} ${escapeText(`${topic}: ${text}`)}`;
  return advice === null ? line : `${line}\n          → ${escapeText(advice)}`;
}

function count(findings: readonly Finding[], state: Finding["state"]): number {
  return findings.filter((finding) => finding.state === state).length;
}

function counted(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

async function doctor(options: Options): Promise<void> {
  const findings = await diagnose(options.config);
  const problems = count(findings, "problem");
  if (options.json) console.log(jsonText({ ok: problems === 0, findings }));
  else {
    console.log(findings.map(lineOf).join("\n"));
    console.log(`\n${counted(problems, "problem")}, ${counted(count(findings, "warning"), "warning")}.`);
  }
  if (problems > 0) process.exitCode = exitCodes.notSo;
}

export function command(): Command {
  return new Command("doctor")
    .description(
      "Check this installation: nix-daemon's settings and hooks, users, folders, the service, the linker, the audit. Each finding is ok, a warning or a problem, with advice. Changes nothing. Root can check everything; other users are told what they cannot see, and whether nix-broker jail has what it needs.",
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Example:
  sudo nix-broker doctor

JSON: {"ok": true or false, "findings": [{"state": "ok", "warning" or "problem", "topic", "text", "advice" or null}]}
Exit code 1 if there is a problem.`,
    )
    .action(doctor);
}
