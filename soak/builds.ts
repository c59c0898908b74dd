/** Outer builds, several at once and one after the other, each of which is checked when it succeeds. */
import { LabError } from "../lab/lab.ts";
import { checkResult } from "./check.ts";
import type { Disturber } from "./disturber.ts";
import { expressionOf, type Item, randomItem } from "./item.ts";
import { Random } from "./random.ts";
import { patienceMs, type World } from "./world.ts";

/** A build that succeeded, and that the last collection must not touch. */
interface Kept {
  readonly out: string;
  readonly item: Item;
}

const atOnce = 4;

/** How a build may fail while things are killed: the first pattern that its log matches names it. */
const failures: readonly (readonly [kind: string, log: RegExp])[] = [
  ["the client was killed", /^the client was killed$/],
  ["its sandbox was over before it", /its build is over|the sandbox is over/],
  ["its asker was gone", /the build that asked for this one is gone/],
  ["it got no sandbox", /as a chroot store|creating directory .\/nix\/var/],
  ["the linker was away", /linker/],
  [
    "the service was away",
    /cannot connect to (?:socket|daemon at)|nix-broker service does not run|the service stops/,
  ],
  ["the daemon was away", /the connection to the nix-daemon broke|cannot (?:ask|reach) the nix-daemon/],
  ["a connection broke", /end-of-file|reset by peer|[Bb]roken pipe|disconnected|reading from file/],
  ["its client was killed", /exit code 137|signal 9/],
];

export class Builds {
  private readonly world: World;
  private readonly disturber: Disturber;
  private readonly kept: Kept[] = [];
  private stopped = false;
  private running: Promise<unknown> = Promise.resolve();

  constructor(world: World, disturber: Disturber) {
    this.world = world;
    this.disturber = disturber;
  }

  start(): void {
    this.running = Promise.all(Array.from({ length: atOnce }, (_, number) => this.goOn(number)));
  }

  /** Resolves when the last build has ended. */
  async stop(): Promise<void> {
    this.stopped = true;
    await this.running;
  }

  /** One build, which must succeed: nothing disturbs it. */
  async undisturbed(name: string): Promise<void> {
    const item = randomItem(Random.of(this.world.seed, name), name);
    const log = await this.build(item);
    if (log !== undefined) this.world.tally.fault(`${name} failed, and nothing disturbed it:\n${log}`);
  }

  /** Checks again what was kept. */
  async checkKept(when: string): Promise<void> {
    for (const { out, item } of this.kept) await checkResult(this.world, out, item, when);
  }

  private async goOn(number: number): Promise<void> {
    const random = Random.of(this.world.seed, `builds ${number}`);
    for (let count = 0; !this.stopped; count++) {
      const item = randomItem(random, `outer-${number}-${count}`);
      const before = this.disturber.moment;
      const wasBusy = this.disturber.isBusy;
      const log = await this.build(item);
      const meanwhile = this.disturber.since(before);
      if (log !== undefined)
        this.countFailure(item, log, wasBusy ? ["one that had begun", ...meanwhile] : meanwhile);
      // What failed in the middle is often tried again.
      if (log !== undefined && random.chance(0.5) && !this.stopped) {
        const again = await this.build(item);
        if (again !== undefined) this.countFailure(item, again, ["what failed before", ...meanwhile]);
      }
    }
  }

  /** @returns its log if it failed. */
  private async build(item: Item): Promise<string | undefined> {
    const { daemon } = this.world.lab;
    const link = `/tmp/soak/${item.name}`;
    try {
      const { code, out, log } = await daemon.tryBuild(expressionOf(item, "outside"), {
        args: ["--out-link", link],
        timeoutMs: patienceMs,
      });
      if (code !== 0) return code === null ? "the client was killed" : log;
      this.world.tally.count("builds", "succeeded");
      await checkResult(this.world, out, item, "at once");
      // Half of them are let go, so that the collector has something to collect.
      if (Random.of(this.world.seed, item.name).chance(0.5)) this.kept.push({ out, item });
      else await daemon.run(["rm", link]);
      return undefined;
    } catch (error) {
      if (!(error instanceof LabError)) throw error;
      this.world.tally.fault(`${item.name} hangs: ${error.message}`);
      return undefined;
    }
  }

  /** @param disturbances that may be why */
  private countFailure(item: Item, log: string, disturbances: readonly string[]): void {
    const { tally } = this.world;
    const kind = failures.find(([, pattern]) => pattern.test(log))?.[0] ?? "otherwise";
    const undisturbed = disturbances.length === 0;
    tally.count("builds", `failed: ${kind}${undisturbed ? ", with nothing disturbed" : ""}`);
    if (undisturbed || ["otherwise", "it got no sandbox"].includes(kind))
      tally.note(`${item.name} failed (${kind}) after: ${disturbances.join(", ") || "nothing"}\n${log}`);
  }
}
