/** Kills, stops and starts anew what is under test, at random, until told to stop; then all of it runs again. */
import { setTimeout as sleep } from "node:timers/promises";
import { type Disturbance, type Lane, lanes } from "./disturbances.ts";
import { Random } from "./random.ts";
import type { World } from "./world.ts";

/** In milliseconds. Now and then nothing is disturbed for a while: what begins and ends then has no excuse. */
const calm = { every: 25_000, lasts: 8_000 };

export class Disturber {
  private readonly world: World;
  private readonly stopping = new AbortController();
  private running: Promise<unknown> = Promise.resolve();
  /** The kinds of all disturbances so far, as they began. */
  private readonly begun: string[] = [];
  private active = 0;
  private isCalm = false;

  constructor(world: World) {
    this.world = world;
  }

  /** For `since`. */
  get moment(): number {
    return this.begun.length;
  }

  /** Whether something is disturbed at this moment. */
  get isBusy(): boolean {
    return this.active > 0;
  }

  /** The kinds of what began since then. */
  since(moment: number): readonly string[] {
    return this.begun.slice(moment);
  }

  start(): void {
    const loops = lanes.map((lane) => this.disturb(lane));
    this.running = Promise.all([...loops, this.calmDown()]);
  }

  /** Resolves when each disturbance has ended. */
  async stop(): Promise<void> {
    this.stopping.abort();
    await this.running;
  }

  private async disturb(lane: Lane): Promise<void> {
    const random = Random.of(this.world.seed, lane.name);
    for (;;) {
      await this.pause(random.between(0.2, 1.8) * lane.everyMs);
      while (this.isCalm && !lane.isHarmless) await this.pause(100);
      if (this.stopping.signal.aborted) return;
      const disturbance = random.pick(lane.disturbances);
      await (lane.isHarmless ? this.run(disturbance, random) : this.counted(disturbance, random));
    }
  }

  private async counted(disturbance: Disturbance, random: Random): Promise<void> {
    this.begun.push(disturbance.kind);
    this.active++;
    try {
      await this.run(disturbance, random);
    } finally {
      this.active--;
    }
  }

  private async run({ kind, act }: Disturbance, random: Random): Promise<void> {
    try {
      if (await act(this.world, random)) this.world.tally.count("disturbances", kind);
    } catch (error) {
      this.world.tally.fault(`after "${kind}": ${error instanceof Error ? error.stack : error}`);
    }
  }

  private async calmDown(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      await this.pause(calm.every);
      this.isCalm = true;
      while (this.active > 0) await this.pause(100);
      await this.pause(calm.lasts);
      this.isCalm = false;
    }
  }

  /** Shorter, once it is to stop. */
  private async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.stopping.signal }).catch(() => sleep(10));
  }
}
