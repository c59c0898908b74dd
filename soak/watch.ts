/** Memory and descriptors of service and linker, whichever process is the one of the moment. */
import { readdirSync } from "node:fs";
import { readOrNothing, type World } from "./world.ts";

export type Part = "service" | "linker";

export interface Use {
  /** The most memory that one of its processes ever had, in bytes. */
  peakBytes: number;
  peakDescriptors: number;
}

export class Watch {
  readonly use: Readonly<Record<Part, Use>> = {
    service: { peakBytes: 0, peakDescriptors: 0 },
    linker: { peakBytes: 0, peakDescriptors: 0 },
  };
  private readonly world: World;
  private timer: NodeJS.Timeout | undefined;

  constructor(world: World) {
    this.world = world;
  }

  start(): void {
    this.timer = setInterval(() => this.look(), 250);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  /** What it has open now. */
  descriptors(part: Part): number {
    try {
      return readdirSync(`/proc/${this.pid(part)}/fd`).length;
    } catch {
      // It ended since it was asked for.
      return 0;
    }
  }

  private pid(part: Part): number | undefined {
    const { lab } = this.world;
    return part === "service" ? lab.broker?.process.pid : lab.linkerPid;
  }

  private look(): void {
    for (const part of ["service", "linker"] as const) {
      const use = this.use[part];
      const status = readOrNothing(`/proc/${this.pid(part)}/status`);
      const peak = Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024;
      use.peakBytes = Math.max(use.peakBytes, peak);
      use.peakDescriptors = Math.max(use.peakDescriptors, this.descriptors(part));
    }
  }
}
