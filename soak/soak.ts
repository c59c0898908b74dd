/** A soak from its start to its end: builds and disturbances for some minutes, then a look at all that is left. */
import { setTimeout as sleep } from "node:timers/promises";
import type { NixVersion } from "../lab/lab.ts";
import { RecursiveLab } from "../lab/recursive.ts";
import { Builds } from "./builds.ts";
import { Disturber } from "./disturber.ts";
import { noFoldersLeft, noProcessesLeft } from "./leftovers.ts";
import { Tally } from "./tally.ts";
import { type Part, type Use, Watch } from "./watch.ts";
import { eventually, onStore, type World } from "./world.ts";

export interface SoakOptions {
  readonly version: NixVersion;
  readonly seed: number;
  readonly minutes: number;
  /** Told of each fault at once, and of each failure that cannot be explained. */
  readonly say: (line: string) => void;
}

export interface SoakResult {
  readonly tally: Tally;
  readonly use: Readonly<Record<Part, Use>>;
}

/** Of either process, at any time: what the whole budget for requests under way allows. */
const memoryBytes = 512 * 1024 ** 2;

/** Patient, so that a build that begins while linker or service are away waits for them, on a slow machine too. */
const rootConfig = "hook_wait_ms=60000\n";

export async function soak(options: SoakOptions): Promise<SoakResult> {
  const lab = await RecursiveLab.start(options.version, { rootConfig });
  try {
    const world: World = { lab, seed: options.seed, tally: new Tally(options.say) };
    await lab.daemon.run(["install", "-d", "-o", "alice", "/tmp/soak"]);
    const watch = new Watch(world);
    watch.start();
    await run(world, watch, options.minutes);
    watch.stop();
    return { tally: world.tally, use: watch.use };
  } finally {
    await lab.stop();
  }
}

async function run(world: World, watch: Watch, minutes: number): Promise<void> {
  const disturber = new Disturber(world);
  const builds = new Builds(world, disturber);
  await builds.undisturbed("first");
  await noFoldersLeft(world);
  const atRest = await descriptorsAtRest(watch);

  builds.start();
  disturber.start();
  await sleep(minutes * 60_000);
  await disturber.stop();
  await builds.stop();

  await builds.undisturbed("last");
  await collect(world);
  await builds.checkKept("after a collection");
  await noFoldersLeft(world);
  await collect(world);
  await builds.checkKept("after the last collection");
  await storeIsWhole(world);
  for (const part of ["service", "linker"] as const) {
    if (await eventually(() => watch.descriptors(part) <= atRest[part] + COME_AND_GO)) continue;
    world.tally.fault(
      `the ${part} has ${watch.descriptors(part)} descriptors open; at first it had ${atRest[part]}`,
    );
  }
  await auditVerifies(world, "while the service runs");
  await world.lab.broker?.stop();
  await world.lab.stopLinker();
  await noProcessesLeft(world);
  await auditVerifies(world, "at the end");
  memoryIsBounded(world, watch);
}

/**
 * Descriptors that one moment has and another has not: of connections to the daemon that are kept for a while, and of the thread
 * that checkpoints the audit. What leaks with every build, or every connection, is more in the end.
 */
const COME_AND_GO = 8;

/**
 * The most within some seconds: the service opens connections to have them ready, one after the other, in place of those that
 * the last build took.
 */
async function descriptorsAtRest(watch: Watch): Promise<Record<Part, number>> {
  const most = { service: 0, linker: 0 };
  for (let look = 0; look < 50; look++) {
    for (const part of ["service", "linker"] as const)
      most[part] = Math.max(most[part], watch.descriptors(part));
    await sleep(100);
  }
  return most;
}

async function collect(world: World): Promise<void> {
  const { code, stderr } = await onStore(world, "nix-store", "--gc");
  if (code !== 0) world.tally.fault(`nix-store --gc: ${stderr}`);
}

async function storeIsWhole(world: World): Promise<void> {
  const { code, stderr } = await onStore(world, "nix-store", "--verify", "--check-contents");
  if (code !== 0) world.tally.fault(`nix-store --verify: ${stderr}`);
  else world.tally.count("checks", "nix-store --verify --check-contents");
}

async function auditVerifies(world: World, when: string): Promise<void> {
  const verified = await world.lab.broker?.cli("audit", "verify");
  if (verified?.code === 0) world.tally.count("checks", "nix-broker audit verify");
  else world.tally.fault(`nix-broker audit verify, ${when}: ${verified?.stdout}${verified?.stderr}`);
}

function memoryIsBounded(world: World, watch: Watch): void {
  for (const [part, { peakBytes }] of Object.entries(watch.use))
    if (peakBytes > memoryBytes)
      world.tally.fault(`the ${part} had ${Math.round(peakBytes / 1024 ** 2)} MiB`);
}
