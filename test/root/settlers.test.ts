/** The linker's processes that settle sandboxes. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { Settlers } from "../../src/root/settlers.ts";

const IDLE_MS = 10_000;
const folder = mkdtempSync(join(tmpdir(), "nix-broker-settlers-"));
afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true, force: true });
});

test("a settler that was let go of is asked nothing more, however long it takes to end", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const program = join(folder, "settler.mjs");
  writeFileSync(
    program,
    `process.on("message", () => process.send({ outcome: "failed", violations: [], error: String(process.pid) }));
     process.on("disconnect", () => setTimeout(() => process.exit(), 500));
     setInterval(() => undefined, 1000);`,
  );
  const settlers = new Settlers(program);
  const first = await settlers.settle("0".repeat(32));
  expect(await settlers.settle("0".repeat(32))).toEqual(first);
  vi.advanceTimersByTime(IDLE_MS);
  const second = await settlers.settle("0".repeat(32));
  expect(second.error).not.toBe(first.error);
  vi.advanceTimersByTime(IDLE_MS);
});
