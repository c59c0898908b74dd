import { Command } from "commander";
import packageJson from "../../package.json" with { type: "json" };
import { escapeText, jsonText } from "../audit/escape.ts";
import { durationText, sizeText } from "../audit/figures.ts";
import type { LinkerReport, StatusReport } from "../service/control/messages.ts";
import { askRunningService } from "./ask-service.ts";
import { configOption, jsonOption } from "./options.ts";
import { exitCodes } from "./outcome.ts";
import { alignedColumns } from "./table.ts";

interface Options {
  readonly config?: string;
  readonly json?: true;
}

function linkerText({ error, needed, sandboxes, queued, linked, waiting }: LinkerReport): string {
  if (!needed && error !== null) return "none; only builds that opt in need it";
  const facts = [
    sandboxes === null ? "" : `${sandboxes} sandboxes, ${queued} queued, ${linked} paths linked`,
    waiting === 0 ? "" : `${waiting} requests are waiting for it`,
  ];
  const state = error === null ? "ok" : `NOT OK: ${error} (builds that opt in are refused)`;
  return [state, ...facts.filter((fact) => fact !== "")].join("; ");
}

function upstreamText({ at, error, protocol, nixVersion }: StatusReport["upstream"]): string {
  const version = `${nixVersion === null ? "Nix" : `Nix ${nixVersion}`}, protocol ${protocol}`;
  const state = error === null ? "ok" : `NOT OK: ${error}`;
  return `${state}; ${protocol === null ? "never reached" : version}; ${at}`;
}

function socketsText(sockets: StatusReport["sockets"]): string {
  const shut = sockets.filter(({ error }) => error !== null);
  const open = `${sockets.length - shut.length} open`;
  return shut.length === 0 ? open : `NOT OK: ${shut.map(({ error }) => error).join(" ")}; ${open}`;
}

function configurationText({ configFile, reloadError }: StatusReport["service"]): string {
  const file = configFile ?? "none, the defaults apply";
  return reloadError === null ? file : `NOT OK: not taken up, the one before is in force: ${reloadError}`;
}

/** Whether everything that the service needs can be used. */
function isWell({ service, upstream, sockets, audit, linker }: StatusReport): boolean {
  const errors = [
    service.reloadError,
    upstream.error,
    audit.error,
    linker.needed ? linker.error : null,
    ...sockets.map(({ error }) => error),
  ];
  return errors.every((error) => error === null);
}

/** What a service of an earlier version, which an upgrade has not restarted yet, does not say. */
function completed(report: StatusReport): StatusReport {
  const { service, linker, sockets = [] } = report;
  return {
    ...report,
    service: { ...service, reloadError: service.reloadError ?? null },
    linker: { ...linker, needed: linker.needed ?? true },
    sockets,
  };
}

function serviceText({ version, uptimeSeconds, pid, uid }: StatusReport["service"]): string {
  const other =
    version === packageJson.version ? "" : ` (this program is ${packageJson.version}: restart the service)`;
  return `nix-broker ${version}${other}, up ${durationText(uptimeSeconds)}, pid ${pid}, uid ${uid}`;
}

/** What `nix-broker status` prints for people, one topic per line. */
export function statusText(given: StatusReport): string {
  const report = completed(given);
  const { service, pool, sandboxes, connections, memory, requests, innerBuilds, audit, limitsHit } = report;
  const limits = Object.entries(limitsHit).map(([limit, count]) => `${limit} ${count}×`);
  const rows = [
    ["service", serviceText(service)],
    ["configuration", configurationText(service)],
    ["upstream", upstreamText(report.upstream)],
    ["pool", `${pool.idle} connections ready (${pool.size} for each dialect)`],
    ["sandboxes", `${sandboxes.builds} of builds, ${sandboxes.static} of static sockets`],
    ["static sockets", socketsText(report.sockets)],
    ["connections", String(connections)],
    [
      "memory",
      `${sizeText(memory.held)} of ${sizeText(memory.size)} held by requests, ${memory.waiting} waiting for some`,
    ],
    ["requests", `${requests.forward} forwarded, ${requests.answer} answered, ${requests.deny} denied`],
    [
      "inner builds",
      `${innerBuilds.running} running, ${innerBuilds.succeeded} succeeded, ${innerBuilds.failed} failed`,
    ],
    [
      "audit",
      `${audit.error === null ? "ok" : `NOT OK: ${audit.error}`}; ${audit.records} records, ` +
        `${audit.pending} not yet written (${durationText(audit.lagSeconds)} behind), ${audit.lost} lost; ${audit.folder}`,
    ],
    ["linker", linkerText(report.linker)],
    ["limits hit", limits.length === 0 ? "none" : limits.join(", ")],
  ];
  return alignedColumns(rows.map(([topic, text]) => [topic!, escapeText(text!)]));
}

async function status(options: Options): Promise<void> {
  const report = await askRunningService(options.config, "status", {});
  console.log(options.json ? jsonText(report) : statusText(report));
  if (!isWell(completed(report))) process.exitCode = exitCodes.notSo;
}

export function command(): Command {
  return new Command("status")
    .description(
      "Show the service's status: upstream, sandboxes, requests, audit, linker, limits. Uses the control socket, which root, the service's user and members of runtime.admin_group may use.",
    )
    .addOption(configOption())
    .addOption(jsonOption())
    .addHelpText(
      "after",
      `
Example:
  nix-broker status --json | jq .audit

JSON: one object; docs/control.md lists its fields.
Exit codes: 0 all is well, 1 something is NOT OK, 2 wrong usage or configuration, 3 the service cannot be reached.`,
    )
    .action(status);
}
