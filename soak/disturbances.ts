/** What is done to service, linker, daemon, workers, hooks and clients. Whatever is stopped goes on, whatever ends is started anew. */
import { setTimeout as sleep } from "node:timers/promises";
import { holdLocks } from "./lock-noise.ts";
import type { Random } from "./random.ts";
import { onStore, type Process, patienceMs, processesOf, type World } from "./world.ts";

export interface Disturbance {
  readonly kind: string;
  /** @returns whether there was something to do it to. */
  act(world: World, random: Random): Promise<boolean>;
}

/** Disturbances that exclude each other; those of several lanes come at the same time. */
export interface Lane {
  readonly name: string;
  /** On average, in milliseconds. */
  readonly everyMs: number;
  /** No build may fail of it. */
  readonly isHarmless: boolean;
  readonly disturbances: readonly [Disturbance, ...Disturbance[]];
}

/** How long the service may finish what is in flight before it is killed after all. */
const graceMs = 5_000;

const service: Lane = {
  name: "service",
  everyMs: 9_000,
  isHarmless: false,
  disturbances: [
    {
      kind: "service killed",
      async act({ lab }, random) {
        await lab.broker?.stop("SIGKILL");
        await sleep(random.between(0, 1_500));
        await lab.startService();
        return true;
      },
    },
    {
      kind: "service restarted",
      async act({ lab }) {
        const killing = setTimeout(() => void lab.broker?.stop("SIGKILL"), graceMs);
        await lab.broker?.stop();
        clearTimeout(killing);
        await lab.startService();
        return true;
      },
    },
    { kind: "service stopped for a while", act: ({ lab }, random) => halt(lab.broker?.process.pid, random) },
  ],
};

const linker: Lane = {
  name: "linker",
  everyMs: 7_000,
  isHarmless: false,
  disturbances: [
    {
      kind: "linker killed",
      async act({ lab }, random) {
        await lab.stopLinker("SIGKILL");
        await sleep(random.between(0, 1_500));
        await lab.startLinker();
        return true;
      },
    },
    {
      kind: "linker restarted",
      async act({ lab }) {
        await lab.stopLinker();
        await lab.startLinker();
        return true;
      },
    },
    { kind: "linker stopped for a while", act: ({ lab }, random) => halt(lab.linkerPid, random) },
  ],
};

const daemon: Lane = {
  name: "daemon",
  everyMs: 40_000,
  isHarmless: false,
  disturbances: [
    {
      kind: "daemon killed, its workers live on",
      async act({ lab }) {
        await lab.daemon.kill();
        await lab.daemon.restart();
        return true;
      },
    },
    {
      kind: "daemon killed with its workers",
      async act({ lab }) {
        await lab.daemon.restart();
        return true;
      },
    },
  ],
};

function isWorker({ command }: Process): boolean {
  return /^nix-daemon [0-9]+$/.test(command);
}

/** Root's are those that collect garbage and check results. */
function isClient({ command, isRoots }: Process): boolean {
  return /^(?:\S*\/)?nix-(?:build|store) /.test(command) && !isRoots;
}

function isHook({ command }: Process): boolean {
  return / post-build-hook\b/.test(command);
}

const processes: Lane = {
  name: "processes",
  everyMs: 4_000,
  isHarmless: false,
  disturbances: [
    { kind: "worker killed", act: (world, random) => end(world, random, isWorker) },
    {
      kind: "worker stopped for a while",
      // One of 2.3 that is stopped while it waits for a collection to add a temporary root has no lock on the file of its roots
      // then: the next collection takes it for dead, and all its roots, later ones too, count for nothing. Not so from 2.8 on.
      act: async (world, random) =>
        world.lab.daemon.version !== "2.3" && halt(one(world, random, isWorker), random),
    },
    { kind: "client killed", act: (world, random) => end(world, random, isClient) },
    {
      kind: "client stopped for a while",
      act: (world, random) => halt(one(world, random, isClient), random),
    },
    { kind: "post-build hook killed", act: (world, random) => end(world, random, isHook) },
  ],
};

const collector: Lane = {
  name: "collector",
  everyMs: 5_000,
  isHarmless: true,
  disturbances: [
    {
      kind: "garbage collected by root",
      async act(world) {
        const { code, stderr } = await onStore(world, "nix-store", "--gc");
        if (code !== 0) throw new Error(`nix-store --gc: ${stderr}`);
        return true;
      },
    },
    {
      // It fails where its worker is killed.
      kind: "garbage collected by the daemon",
      async act({ lab }) {
        return (await lab.daemon.run(["nix-store", "--gc"], { timeoutMs: patienceMs })).code === 0;
      },
    },
  ],
};

const locks: Lane = {
  name: "locks",
  everyMs: 8_000,
  isHarmless: true,
  disturbances: [
    {
      kind: "locks of nobody's taken and dropped in a loop",
      async act({ lab }, random) {
        await holdLocks(lab.daemon, random.between(3, 8));
        return true;
      },
    },
  ],
};

export const lanes: readonly Lane[] = [service, linker, daemon, processes, collector, locks];

function one(world: World, random: Random, isOne: (process: Process) => boolean): number | undefined {
  const found = processesOf(world).filter(isOne);
  return found[random.whole(0, found.length - 1)]?.pid;
}

async function end(world: World, random: Random, isOne: (process: Process) => boolean): Promise<boolean> {
  return signal(one(world, random, isOne), "SIGKILL");
}

async function halt(pid: number | undefined, random: Random): Promise<boolean> {
  const found = signal(pid, "SIGSTOP");
  if (found) await sleep(random.between(100, 3_000));
  signal(pid, "SIGCONT");
  return found;
}

/** @returns false if there is no such process any more. */
function signal(pid: number | undefined, name: NodeJS.Signals): boolean {
  if (pid === undefined) return false;
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}
