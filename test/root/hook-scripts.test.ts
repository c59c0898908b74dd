import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";

const scripts = fileURLToPath(new URL("../../src/root", import.meta.url));
const asking = 'Derive(("requiredSystemFeatures","nix-broker"))';
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "nix-broker-hooks-"));
  mkdirSync(join(folder, "run/derivations"), { recursive: true });
  writeFileSync(join(folder, "x.drv"), asking);
  writeFileSync(join(folder, "run/derivations/x.drv"), "");
  writeFileSync(join(folder, "next"), '#!/bin/sh\necho "next: $* $NIX_DERIVATION_V4"\nexit 3\n', {
    mode: 0o755,
  });
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function hook(name: string, config: string, node: string, shell = "sh", chroot = "/x.drv.chroot") {
  writeFileSync(join(folder, "root.conf"), config);
  return spawnSync(shell, [join(scripts, `${name}-build-hook.sh`), join(folder, "x.drv"), chroot], {
    encoding: "utf8",
    env: {
      ...process.env,
      DRV_PATH: join(folder, "x.drv"),
      NIX_BROKER_ROOT_CONFIG: join(folder, "root.conf"),
      NIX_BROKER_NODE: node,
      // Determinate Nix gives the derivation as JSON, too.
      NIX_DERIVATION_V4: join(folder, "derivation.json"),
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
  expect(alone.stdout).toBe(name === "pre" ? noDaemon() : "");
  expect(alone.stderr).toContain(`nix-broker: the ${name}-build hook ended with`);
  const chained = hook(name, `${runtime}next_${name}_build_hook=${folder}/next\n`, path);
  expect(chained.status).toBe(3);
  expect(chained.stdout).toMatch(/^next: .*\/derivation\.json$/m);
  expect(chained.stdout.startsWith(name === "pre" ? noDaemon() : "next: ")).toBe(true);
});

/** What a build gets that asks for a sandbox and cannot have one. */
function noDaemon(): string {
  const made = join(folder, "run/no-daemon");
  return `extra-sandbox-paths\n/nix/var/nix/daemon-socket=${made}/socket.d\n/etc/nix=${made}/etc\n\n`;
}

test("where its program failed, the pre-build hook maps nothing into what does not ask for a sandbox, or has no chroot", () => {
  const runtime = `runtime_dir=${folder}/run\n`;
  expect(hook("pre", runtime, brokenNodes.missing, "sh", "").stdout).toBe("");
  writeFileSync(join(folder, "x.drv"), "Derive(a text about nix-broker)");
  expect(hook("pre", runtime, brokenNodes.missing).stdout).toBe("");
  expect(readdirSync(join(folder, "run"))).toEqual(["derivations"]);
});

test("G8: where its program failed and no folder can be made, the pre-build hook fails the build", () => {
  writeFileSync(join(folder, "file"), "");
  const { status, stdout, stderr } = hook("pre", `runtime_dir=${folder}/file\n`, brokenNodes.missing);
  expect(status).toBe(1);
  expect(stdout).toBe("");
  expect(stderr).toContain("no-daemon cannot be made, so this build is refused");
});

test("what a program printed that then failed does not count", () => {
  writeFileSync(join(folder, "node"), "#!/bin/sh\necho extra-sandbox-paths\nexit 1\n", { mode: 0o755 });
  expect(hook("pre", `runtime_dir=${folder}/run\n`, join(folder, "node")).stdout).toBe(noDaemon());
});

const shells = ["dash", "bash"].filter((shell) => spawnSync(shell, ["-c", ":"]).status === 0);
const padding = "another text, ".repeat(2000);
const derivations = {
  "a usual one": ["Derive(names nix-broker)", "Derive(names none of us)"],
  "a long one, at its end": [`Derive(${padding}nix-broker)`, `Derive(${padding}nix-brok`],
  "one that ends with our name": ["Derive(nix-broker", "Derive(nix-broke"],
  "one with a byte 0 and one that is no UTF-8": [
    Buffer.from("Derive(\0\xffnix-broker)", "latin1"),
    Buffer.from("Derive(\0\xffnix-brok\0er)", "latin1"),
  ],
} as const;

test.each(
  shells.flatMap((shell) =>
    Object.entries(derivations).map(([what, texts]) => [shell, what, texts] as const),
  ),
)("under %s the pre-build hook asks the real program for %s, if it names us alone", (shell, _, texts) => {
  writeFileSync(join(folder, "node"), "#!/bin/sh\necho asked\n", { mode: 0o755 });
  const asked = texts.map((text) => {
    writeFileSync(join(folder, "x.drv"), text);
    return hook("pre", "", join(folder, "node"), shell).stdout;
  });
  expect(asked).toEqual(["asked\n\n", ""]);
});

test.each(shells)(
  "under %s the real program looks at a .drv that cannot be read; there may be none",
  (shell) => {
    writeFileSync(join(folder, "node"), "#!/bin/sh\necho asked\n", { mode: 0o755 });
    rmSync(join(folder, "x.drv"));
    expect(hook("pre", "", join(folder, "node"), shell).stdout).toBe("");
    mkdirSync(join(folder, "x.drv"));
    expect(hook("pre", "", join(folder, "node"), shell).stdout).toBe("asked\n\n");
  },
);
