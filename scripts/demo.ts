/**
 * `npm run demo`: a real build that calls nix-build inside, through the broker, and one that cheats. Starts a
 * private daemon and broker, touches nothing else on the machine, and exits with 1 if a check fails.
 */
import { readFileSync, readlinkSync } from "node:fs";
import { parseArgs } from "node:util";
import type { AuditRow } from "../lab/broker.ts";
import { type Daemon, LabError, lab, type NixVersion } from "../lab/lab.ts";
import { buildProgram } from "../lab/program.ts";
import {
  attempts,
  cheatingBuild,
  cheatingScript,
  honestBuild,
  messageOf,
  type Targets,
} from "./demo-builds.ts";
import { auditLine, bold, checked, command, dim, heading, paragraph, quote, step } from "./demo-terminal.ts";
import { readOutcomes, startWorld, type World } from "./demo-world.ts";

const usage = `usage: npm run demo [-- --nix VERSION]

  --nix VERSION   the daemon's version: 2.3, 2.8, 2.26 or 2.34 (default: the newest that can be had)
`;

let broken = 0;
function check(passed: boolean, text: string): void {
  if (!passed) broken++;
  checked(passed, text);
}

function chooseVersion(wanted: string | undefined): NixVersion {
  const { versions } = lab;
  const chosen = wanted === undefined ? versions.at(-1) : versions.find((version) => version === wanted);
  if (chosen === undefined) {
    throw new LabError(`There is no Nix ${wanted} here. There is: ${versions.join(", ")}.`);
  }
  return chosen;
}

/** A file in the store that no build declares as its input, and a derivation that reads it all the same. */
async function prepareTargets(daemon: Daemon): Promise<Targets> {
  const secretText = "the secret of another build";
  const script = `set -e
cd "$(mktemp -d)"
echo "${secretText}" > secret
secret=$(nix-store --add secret)
drv=$(nix-instantiate --expr "derivation { name = \\"steal\\"; system = builtins.currentSystem; builder = \\"/bin/sh\\";
  args = [ \\"-c\\" \\"read line < \${secret}; echo \\\\\\"\\$line\\\\\\" > \\$out; :\\" ];
  secret = builtins.storePath $secret; }")
echo $secret
cat $drv`;
  const { code, stdout, stderr } = await daemon.run(["bash", "-c", script]);
  if (code !== 0) throw new LabError(`The demo's files cannot be added to the store: ${stderr}`);
  const end = stdout.indexOf("\n");
  return {
    secret: stdout.slice(0, end),
    secretText,
    madeUp: `/nix/store/${"0".repeat(32)}-secret`,
    stealDerivation: stdout.slice(end + 1).trimEnd(),
  };
}

function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

function showAudit(rows: readonly AuditRow[]): void {
  for (const { op, verdict, subjects = [], detail, reason = "" } of rows) {
    if (verdict === undefined) continue;
    const dropped = detail?.settingsDropped;
    const note = Array.isArray(dropped) ? `not passed on: ${dropped.join(", ")}` : reason;
    auditLine(verdict, op, op === "SetOptions" ? "" : subjects.map(baseName).join(" "), note);
  }
}

function innerResult({ daemon, perBuild }: World, out: string): string {
  const path = daemon.hostPath(`${out}/inner`);
  return perBuild ? readlinkSync(path) : readFileSync(path, "utf8").trim();
}

/** Nix looks for references among the inputs only; those to inner results are registered by the post-build hook. */
async function showReferences(daemon: Daemon, out: string, inner: string): Promise<void> {
  paragraph("");
  command(`nix-store --query --references ${baseName(out)}`);
  const { stdout } = await daemon.run(["nix-store", "--query", "--references", out]);
  quote(stdout.trim() === "" ? "(none)" : stdout);
  check(
    stdout.includes(inner),
    "the inner result is a reference of the outer one, so the garbage collector keeps it as long as that",
  );
}

async function showHonestBuild(world: World): Promise<void> {
  const { daemon, surroundings, perBuild } = world;
  heading("1. A build that calls nix-build");
  const { script, expression } = honestBuild(perBuild, surroundings);
  paragraph(
    `Its builder runs, in Nix's own sandbox, with the ordinary nix-build of Nix ${lab.fullVersion(world.client)}:`,
  );
  quote(script);
  const started = performance.now();
  const { code, out, log } = await daemon.tryBuild(expression);
  paragraph("");
  command("nix-build outer.nix");
  quote(log.trimEnd() === "" ? "(no output)" : log);
  check(code === 0, `the outer build succeeded ${dim(`(${Math.round(performance.now() - started)} ms)`)}`);
  if (code !== 0) return;
  paragraph(`  outer result: ${bold(out)}`);
  const inner = innerResult(world, out);
  paragraph(`  inner result: ${bold(inner)}`);
  const text = readFileSync(daemon.hostPath(perBuild ? `${out}/text` : inner), "utf8").trim();
  check(
    text === "written by the outer build, and built inside",
    `${perBuild ? "the outer build read the inner result" : "the inner result says"}: "${text}"`,
  );
  if (perBuild) await showReferences(daemon, out, inner);

  heading("2. What the broker did for it");
  const rows = await world.audit();
  command("nix-broker audit");
  showAudit(rows);
  const has = (op: string, verdict: string): boolean =>
    rows.some((row) => row.op === op && row.verdict === verdict);
  check(
    has("AddToStore", "forward") || has("AddTextToStore", "forward"),
    "the derivation was checked, rewritten, and forwarded to the daemon",
  );
  check(has("BuildPaths", "forward") || has("BuildPathsWithResults", "forward"), "the build was forwarded");
  check(has("SetOptions", "answer"), "the daemon's settings stayed as they are");
}

async function showCheat(world: World): Promise<void> {
  const { daemon, surroundings } = world;
  heading("3. A build that cheats, and what it gets");
  const targets = await prepareTargets(daemon);
  const list = attempts(targets);
  const before = (await world.audit()).length;
  const built = await daemon.tryBuild(cheatingBuild(list, surroundings));
  check(built.code === 0, "it ran to its end: a refused request leaves the connection usable");
  if (built.code !== 0) return quote(built.log);
  const through = readOutcomes(daemon.hostPath(built.out), list.length);
  const denied = (await world.audit()).slice(before).filter(({ verdict }) => verdict === "deny");

  const folder = `/tmp/cheat-${process.pid}`;
  await daemon.run(["bash", "-c", cheatingScript(list, folder)], { user: "alice", client: world.client });
  const bare = readOutcomes(daemon.hostPath(folder), list.length);

  for (const [i, attempt] of list.entries()) {
    const outcome = through[i];
    const without = bare[i];
    if (!outcome || !without) continue;
    paragraph("");
    paragraph(bold(attempt.title));
    const bareVerdict = attempt.refused(without) || without.code !== 0 ? "refuses it too" : "allows it";
    paragraph(dim(`  bare daemon ${bareVerdict}: ${messageOf(attempt, without)}`));
    const recorded = !attempt.denied || denied.some(({ op }) => attempt.denied?.includes(op));
    check(attempt.refused(outcome) && recorded, `nix-broker: ${messageOf(attempt, outcome)}`);
  }
  paragraph("");
  command("nix-broker audit --verdict deny");
  showAudit(denied);
}

function finish(world: World, started: number): void {
  heading("Done");
  const seconds = Math.round((performance.now() - started) / 1000);
  if (broken > 0) {
    paragraph(`${broken} of the checks above failed. Please report it, with this output.`);
    process.exitCode = 1;
    return;
  }
  paragraph(`All checks passed, after ${seconds} s.`);
  if (!world.perBuild) {
    paragraph(
      "This was a static socket: the inner result cannot be seen in the outer build's sandbox, and is not",
    );
    paragraph("among the references of the outer result. Per-build sandboxes need root.");
  }
  paragraph("Next: README.md, docs/, and `npm test`.");
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { nix: { type: "string" }, help: { type: "boolean", short: "h" } },
  });
  if (values.help) {
    process.stdout.write(usage);
    return;
  }
  const started = performance.now();
  heading("nix-broker: recursive Nix through a broker, on a stock, unpatched Nix");
  paragraph("Nothing is installed and no Nix of this machine is touched.");
  paragraph("");
  if (lab.versions.length === 0)
    paragraph("Nix comes out of Debian's packages, once; this takes half a minute:");
  await lab.fetch();
  await buildProgram();
  const version = chooseVersion(values.nix);
  let world: World | undefined;
  const stop = async (): Promise<void> => world?.stop();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => void stop().finally(() => process.exit(130)));
  }
  try {
    world = await step(
      process.getuid?.() === 0
        ? `a private nix-daemon ${lab.fullVersion(version)} with build users, and beside it nix-broker: service, linker, two hooks`
        : `a private nix-daemon ${lab.fullVersion(version)} of this user's, and nix-broker with one socket`,
      () => startWorld(version),
    );
    await showHonestBuild(world);
    await showCheat(world);
    finish(world, started);
  } finally {
    await stop();
  }
}

try {
  await main();
} catch (error) {
  const known = error instanceof LabError || (error instanceof TypeError && "code" in error);
  process.stderr.write(
    `\nnix-broker demo: ${error instanceof Error ? (known ? error.message : error.stack) : error}\n`,
  );
  process.exitCode = known && error instanceof TypeError ? 2 : 1;
}
