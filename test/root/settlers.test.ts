/** The linker's processes that settle sandboxes. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Settlers } from "../../src/root/settlers.ts";

const IDLE_MS = 10_000;
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-settlers-"));
  chmodSync(folder, 0o755);
});
afterEach(() => {
  vi.useRealTimers();
  rmSync(folder, { recursive: true, force: true });
});

/** Settlers of a program that answers with its pid, and with how it was asked. */
function settlers(): Settlers {
  const program = join(folder, "settler.mjs");
  writeFileSync(
    program,
    `import { existsSync } from "node:fs";
process.on("message", ({ id, keyFiles }) => {
  if (id === "dies") process.exit(3);
  const answer = () => process.send({ outcome: "registered", violations: [id, keyFiles ?? "none"], error: String(process.pid) });
  const wait = setInterval(() => {
    if (id === "waits" && !existsSync(${JSON.stringify(join(folder, "go"))})) return;
    clearInterval(wait);
    answer();
  }, 5);
});
`,
  );
  return new Settlers(program);
}

const pidOf = (answer: { error: string }): number => Number(answer.error);

test("what the daemon's hook was told of its keys is passed on, and one process settles one sandbox after the other", async () => {
  const { settle } = settlers();
  const first = await settle("a", "/key /other");
  expect(first.violations).toEqual(["a", "/key /other"]);
  const second = await settle("b");
  expect(second.violations).toEqual(["b", "none"]);
  expect(second.error).toBe(first.error);
});

test("two work at the same time, and what is more waits", async () => {
  const { settle } = settlers();
  const all = Array.from({ length: 5 }, () => settle("waits"));
  let answered = 0;
  for (const one of all) void one.then(() => answered++);
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(answered).toBe(0);
  writeFileSync(join(folder, "go"), "");
  expect(new Set((await Promise.all(all)).map(pidOf)).size).toBe(2);
});

test("one that ends fails what it was asked, and nothing else", async () => {
  const { settle } = settlers();
  await expect(settle("dies")).rejects.toThrow("settling ended with 3");
  const { error } = await settle("a");
  process.kill(Number(error), "SIGKILL");
  await expect.poll(() => settle("b").then(pidOf, () => Number(error))).not.toBe(Number(error));
});

test("a settler answers, and ends once the linker has ended", async () => {
  const config = join(folder, "root.conf");
  const lines = [`runtime_dir=${folder}/run`, `gcroots_dir=${folder}/roots`, "service_user=1:1"];
  writeFileSync(config, `${lines.join("\n")}\n`, { mode: 0o600 });
  const start = () =>
    fork(fileURLToPath(new URL("../../src/root/main.ts", import.meta.url)), ["settler"], {
      execArgv: [],
      env: { ...process.env, NIX_BROKER_ROOT_CONFIG: config },
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
  const settler = start();
  settler.send({ id: "a".repeat(32) });
  expect((await once(settler, "message"))[0]).toEqual({ outcome: "failed", violations: [], error: "" });
  settler.send({ id: "../x" });
  expect((await once(settler, "message"))[0]).toMatchObject({
    outcome: "pending",
    error: expect.stringContaining("../x"),
  });
  settler.send({ id: "b".repeat(32) });
  settler.disconnect();
  expect(await once(settler, "exit")).toEqual([0, null]);
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
