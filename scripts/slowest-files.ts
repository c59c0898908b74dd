/** A reporter of vitest's: after a long run, the ten slowest test files, and what they waited for. */
import type { Reporter, TestModule } from "vitest/node";

const shown = 10;

function secondsOf(module: TestModule): number {
  const { collectDuration, setupDuration, prepareDuration, duration } = module.diagnostic();
  return (collectDuration + setupDuration + prepareDuration + duration) / 1000;
}

/** Set by test/tell-waits.ts. */
function waitsOf(module: TestModule): string {
  const waits: unknown = Reflect.get(module.meta(), "waits");
  return typeof waits === "string" && waits !== "" ? waits : "nothing but itself";
}

export default class SlowestFiles implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    if (modules.length <= shown) return;
    const slowest = modules
      .map((module) => ({ module, seconds: secondsOf(module) }))
      .sort((a, b) => b.seconds - a.seconds)
      .slice(0, shown);
    console.log("The slowest files, and the longest of what they waited for:");
    for (const { module, seconds } of slowest) {
      console.log(`${seconds.toFixed(1).padStart(7)} s  ${module.relativeModuleId}  (${waitsOf(module)})`);
    }
  }
}
