/**
 * What ends, and what goes on, when service, linker or daemon are killed while an outer build runs. The outer
 * builds here stop at a mark and go on when the test puts a file into the folder that their socket is in.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../lab/lab.ts";
import { RecursiveLab } from "./fixture.ts";

const inner = (name: string): string =>
  `nix-build --no-out-link --expr 'derivation { name = "${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out; :" ]; }'`;
/** Makes a file in the build folder that the test finds, and waits for the test's. */
const waitForTest = (name: string) =>
  `touch mark-${name}; until [ -e /nix/var/nix/daemon-socket/go ]; do sleep 0.05; done`;
const prologue = "export PAGER=cat NIX_PAGER=cat HOME=$PWD/home; mkdir -p $HOME";

/** Builds `before`, waits for the test, builds `after`; its output mentions both. */
const twoStages = (name: string): string => `${prologue}
one=$(${inner(`${name}-before`)})
${waitForTest(name)}
two=$(${inner(`${name}-after`)})
echo $one $two > $out`;

describe.each(lab.versions)("lifetime [daemon %s]", (version) => {
  let recursive: RecursiveLab;
  beforeAll(async () => {
    recursive = await RecursiveLab.start(version);
  });
  afterAll(() => recursive?.stop());

  const host = (path: string): string => recursive.daemon.hostPath(path);
  const sandboxes = (): string[] => {
    const folder = host("/run/nix-broker/sandboxes");
    return existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith(".")) : [];
  };
  const recordOf = (id: string): { drvPath: string } =>
    JSON.parse(readFileSync(host(`/run/nix-broker/sandboxes/${id}/sandbox.json`), "utf8"));
  const go = (id: string): void => writeFileSync(host(`/run/nix-broker/sandboxes/${id}/socket.d/go`), "");
  const until = async <T>(look: () => T | undefined): Promise<T> => {
    for (;;) {
      const found = look();
      if (found !== undefined) return found;
      await sleep(20);
    }
  };
  const sandboxOf = (name: string): Promise<string> =>
    until(() =>
      sandboxes().find(
        (id) =>
          recordOf(id).drvPath.endsWith(`-${name}.drv`) &&
          !existsSync(host(`/run/nix-broker/sandboxes/${id}/ended`)),
      ),
    );
  /** The build of that name has reached its mark: its build folder is in one place or another, by version. */
  const reachedMark = async (name: string): Promise<void> => {
    for (;;) {
      const folders = ["/tmp", "/nix/var/nix/builds"];
      const { stdout } = await recursive.daemon.run(["find", ...folders, "-name", `mark-${name}`]);
      if (stdout !== "") return;
      await sleep(20);
    }
  };
  const start = (name: string, script: string) =>
    recursive.daemon.tryBuild(sandboxScript(script, { name, features: ["nix-broker"] }));
  const references = async (path: string): Promise<string[]> => {
    const { stdout } = await recursive.daemon.run(["nix-store", "-q", "--references", path]);
    return stdout
      .trim()
      .split("\n")
      .map((line) => line.replace(/^.*?-/, ""));
  };

  test("G6: the service is killed while an outer build runs: the build goes on with its successor", async () => {
    const name = "service-killed";
    const building = start(name, twoStages(name));
    const id = await sandboxOf(name);
    await reachedMark(name);
    await recursive.broker?.stop("SIGKILL");
    await recursive.daemon.run(["nix-store", "--gc"]);
    await recursive.startService();
    go(id);
    const { code, out, log } = await building;
    expect(log).not.toContain("error:");
    expect(code).toBe(0);
    expect((await references(out)).sort()).toEqual([`${name}-after`, `${name}-before`]);
  });

  test("G5: the linker is killed while an outer build runs: the build goes on with its successor", async () => {
    const name = "linker-killed";
    const building = start(name, twoStages(name));
    const id = await sandboxOf(name);
    await reachedMark(name);
    await recursive.stopLinker("SIGKILL");
    await recursive.startLinker();
    go(id);
    const { code, out } = await building;
    expect(code).toBe(0);
    expect((await references(out)).sort()).toEqual([`${name}-after`, `${name}-before`]);
  });

  test("G6: the service is killed before the build ends: references are registered all the same", async () => {
    const name = "killed-before-the-end";
    const building = start(
      name,
      `${prologue}\none=$(${inner(`${name}-before`)})\n${waitForTest(name)}\necho $one > $out`,
    );
    const id = await sandboxOf(name);
    await reachedMark(name);
    await recursive.broker?.stop("SIGKILL");
    go(id);
    const { code, out } = await building;
    expect(code).toBe(0);
    await recursive.daemon.run(["nix-store", "--realise", out, "--add-root", "/tmp/kept", "--indirect"]);
    await recursive.daemon.run(["nix-store", "--gc"]);
    await recursive.startService();
    expect(await references(out)).toEqual([`${name}-before`]);
    const [path] = readFileSync(host(out), "utf8").trim().split(" ");
    expect(readFileSync(host(path ?? ""), "utf8")).toBe(`${name}-before\n`);
  });

  test("G6: an outer build that fails leaves no roots behind", async () => {
    const name = "fails";
    const { code } = await start(name, `${prologue}\none=$(${inner(`${name}-before`)})\nexit 3`);
    expect(code).not.toBe(0);
    await until(() => (sandboxes().length === 0 ? true : undefined));
    const left = readdirSync(host("/nix/var/nix/gcroots/nix-broker"));
    expect(left).toEqual([]);
  });

  test("G5: without the linker, a build that opted in is refused, with the reason", async () => {
    await recursive.stopLinker();
    try {
      const { code, log } = await start("no-linker", `${prologue}\n${inner("never")} > $out`);
      expect(code).not.toBe(0);
      expect(log).toContain("the linker of nix-broker does not run");
    } finally {
      await recursive.startLinker();
    }
  });

  test("G8: without the service, a build that opted in fails to reach it, and others build", async () => {
    await recursive.broker?.stop();
    try {
      const refused = await start(
        "no-service",
        `${prologue}\ncat /nix/var/nix/daemon-socket/README; ${inner("never")} > $out`,
      );
      expect(refused.code).not.toBe(0);
      expect(refused.log).toContain("the nix-broker service does not run");
      const other = await recursive.daemon.tryBuild(
        sandboxScript("echo fine > $out", { name: "does-not-opt-in" }),
      );
      expect(other.code).toBe(0);
    } finally {
      await recursive.startService();
    }
  });

  test("G8: an outer build that cannot gain references is refused, with the reason", async () => {
    const fixed = `derivation { name = "fixed-outer"; system = builtins.currentSystem; builder = "/bin/sh";
      PATH = "/lab/${version}/bin:/bin:/usr/bin"; requiredSystemFeatures = [ "nix-broker" ];
      args = [ "-c" "export HOME=$PWD/home PAGER=cat; mkdir $HOME; nix-store --query --hash /nix/store/${"0".repeat(32)}-x; exit 1" ];
      outputHash = builtins.hashString "sha256" "x"; outputHashAlgo = "sha256"; outputHashMode = "flat"; }`;
    const { code, log } = await recursive.daemon.tryBuild(fixed);
    expect(code).not.toBe(0);
    expect(log).toMatch(/fixed-output/);
  });
});
