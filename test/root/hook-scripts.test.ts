import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";

const scripts = fileURLToPath(new URL("../../src/root", import.meta.url));
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-hooks-"));
  mkdirSync(join(folder, "run/derivations"), { recursive: true });
  writeFileSync(join(folder, "x.drv"), "names nix-broker");
  writeFileSync(join(folder, "run/derivations/x.drv"), "");
  writeFileSync(join(folder, "next"), '#!/bin/sh\necho "next: $*"\nexit 3\n', { mode: 0o755 });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function hook(name: string, config: string, node: string) {
  writeFileSync(join(folder, "root.conf"), config);
  return spawnSync("sh", [join(scripts, `${name}-build-hook.sh`), join(folder, "x.drv")], {
    encoding: "utf8",
    env: {
      ...process.env,
      DRV_PATH: join(folder, "x.drv"),
      NIX_BROKER_ROOT_CONFIG: join(folder, "root.conf"),
      NIX_BROKER_NODE: node,
    },
  });
}

const brokenNodes = { missing: "/nonexistent/node", "killed at once": "killed" };

test.each(
  ["pre", "post"].flatMap((name) => Object.entries(brokenNodes).map((node) => [name, ...node] as const)),
)("the %s-build hook does not fail when its Node is %s", (name, what, node) => {
  if (node === "killed") writeFileSync(join(folder, node), "#!/bin/sh\nkill -9 $$\n", { mode: 0o755 });
  const runtime = `runtime_dir=${folder}/run\n`;
  const path = node.startsWith("/") ? node : join(folder, node);
  const alone = hook(name, runtime, path);
  expect(alone.status, what).toBe(0);
  expect(alone.stdout).toBe("");
  expect(alone.stderr).toContain(`nix-broker: the ${name}-build hook ended with`);
  const chained = hook(name, `${runtime}next_${name}_build_hook=${folder}/next\n`, path);
  expect(chained.status).toBe(3);
  expect(chained.stdout).toContain("next: ");
});
