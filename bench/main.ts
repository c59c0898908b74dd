/**
 * `npm run bench`: what the broker costs, against the bare daemon and socat in the same run. The ratios
 * count: figures from one machine say little about another. Nothing here fails because of timing; missed
 * targets are reported.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { LabError, lab } from "../lab/lab.ts";
import { buildProgram } from "../lab/program.ts";
import type { Bench, Measure, Row } from "./measure.ts";
import { add, addOnDisk } from "./measures/add.ts";
import { auditDay } from "./measures/audit-day.ts";
import { auditRows } from "./measures/audit-rows.ts";
import { buildsOverClosure } from "./measures/builds-over-closure.ts";
import { commandStart } from "./measures/command-start.ts";
import { connect } from "./measures/connect.ts";
import { dryRun } from "./measures/dry-run.ts";
import { firstForward } from "./measures/first-forward.ts";
import { hookPrefilter } from "./measures/hook-prefilter.ts";
import { innerBuilds } from "./measures/inner-builds.ts";
import { instantiate } from "./measures/instantiate.ts";
import { longestWait } from "./measures/longest-wait.ts";
import { manyOuters } from "./measures/many-outers.ts";
import { read } from "./measures/read.ts";
import { answered, forwarded } from "./measures/requests.ts";
import { sandboxes } from "./measures/sandboxes.ts";
import { scan } from "./measures/scan.ts";
import { viewStore } from "./measures/view-store.ts";
import { tableHeader, tableLine, toJson } from "./report.ts";
import { type Subjects, startSubjects } from "./subjects.ts";

const measures: readonly Measure[] = [
  connect,
  firstForward,
  answered,
  forwarded,
  read,
  add,
  addOnDisk,
  sandboxes,
  longestWait,
  innerBuilds,
  buildsOverClosure,
  manyOuters,
  instantiate,
  viewStore,
  dryRun,
  hookPrefilter,
  scan,
  auditRows,
  auditDay,
  commandStart,
];

const usage = `usage: npm run bench [-- OPTIONS]

  --only NAME    only this measure; may be given again
  --rounds N     rounds of each (default: 11)
  --nix VERSION  the daemon's version (default: the newest that can be had)
  --json FILE    where the figures go (default: bench/results/TIME.json)

Measures:
${measures.map(({ name, about }) => `  ${name.padEnd(19)} ${about}`).join("\n")}
`;

class UsageError extends Error {
  override name = "UsageError";
}

const readOptions = () => {
  const { values } = parseArgs({
    options: {
      only: { type: "string", multiple: true },
      rounds: { type: "string", default: "11" },
      nix: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  const rounds = Number(values.rounds);
  if (!Number.isSafeInteger(rounds) || rounds < 1)
    throw new UsageError("--rounds must be a number from 1 on");
  for (const name of values.only ?? []) {
    if (!measures.some((measure) => measure.name === name))
      throw new UsageError(`there is no measure "${name}"; --help lists them`);
  }
  return { ...values, rounds, chosen: measures.filter(({ name }) => values.only?.includes(name) ?? true) };
};

const main = async (): Promise<void> => {
  const options = readOptions();
  if (options.help) {
    process.stdout.write(usage);
    return;
  }
  if (process.getuid?.() !== 0)
    throw new UsageError("the bench starts daemons with build users: run it as root");
  const started = new Date().toISOString();
  await buildProgram();
  await lab.fetch();
  const version = lab.versions.find((one) => one === options.nix) ?? lab.versions.at(-1);
  if (version === undefined || (options.nix !== undefined && options.nix !== version))
    throw new UsageError(`there is no Nix ${options.nix} here; there is: ${lab.versions.join(", ")}`);

  let subjects: Promise<Subjects> | undefined;
  const bench: Bench = {
    rounds: options.rounds,
    subjects() {
      subjects ??= startSubjects(version, true);
      return subjects;
    },
  };
  const stop = async (): Promise<void> => (await subjects)?.stop();
  for (const signal of ["SIGINT", "SIGTERM"] as const)
    process.once(signal, () => void stop().finally(() => process.exit(130)));

  const rows: Row[] = [];
  try {
    console.log(
      `Nix ${lab.fullVersion(version)}, Node ${process.version}, ${availableParallelism()} cores; medians of ${options.rounds} rounds\n`,
    );
    console.log(tableHeader());
    for (const measure of options.chosen) {
      const found = await measure.run(bench);
      rows.push(...found);
      for (const row of found) console.log(tableLine(row));
    }
  } finally {
    await stop();
  }
  const file =
    options.json ?? join(import.meta.dirname, "results", `${started.replaceAll(":", "-").slice(0, 19)}.json`);
  mkdirSync(dirname(file), { recursive: true });
  const surroundings = {
    nix: lab.fullVersion(version),
    node: process.version,
    cores: availableParallelism(),
    rounds: options.rounds,
    started,
  };
  writeFileSync(file, toJson(surroundings, rows));
  console.log(`\nwritten to ${file}`);
};

try {
  await main();
} catch (error) {
  const usageFault =
    error instanceof UsageError ||
    (error instanceof TypeError && String(Reflect.get(error, "code")).startsWith("ERR_PARSE_ARGS"));
  const known = usageFault || error instanceof LabError;
  const text = error instanceof Error ? (known ? error.message : error.stack) : String(error);
  console.error(`bench: ${text}`);
  // At once: something half started may keep the process alive.
  process.exit(usageFault ? 2 : 1);
}
