/**
 * What ends, and what goes on, when service, linker or daemon are killed while an outer build runs. The outer
 * builds here stop at a mark and go on when the test puts a file into the folder that their socket is in.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RecursiveLab } from "../../lab/recursive.ts";

function inner(name: string): string {
  return `nix-build --no-out-link --expr 'derivation { name = "${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out; :" ]; }'`;
}
/** Makes a file in the build folder that the test finds, and waits for the test's. */
function waitForTest(name: string) {
  return `touch mark-${name}; until [ -e /nix/var/nix/daemon-socket/go ]; do sleep 0.2; done`;
}
const prologue = "export PAGER=cat NIX_PAGER=cat HOME=$PWD/home; mkdir -p $HOME";

/** Builds `before`, waits for the test, builds `after`; its output mentions both. */
function twoStages(name: string): string {
  return `${prologue}
one=$(${inner(`${name}-before`)})
${waitForTest(name)}
two=$(${inner(`${name}-after`)})
echo $one $two > $out`;
}

/** Builds a derivation that has a sandbox of its own, waits for the test there, and adds a path. */
function nestedStage(name: string, version: string): string {
  return `${prologue}
cat > nested.nix <<'END'
derivation { name = "nested-${name}"; system = builtins.currentSystem; builder = "/bin/sh";
  PATH = "/lab/${version}/bin:/bin:/usr/bin"; requiredSystemFeatures = [ "nix-broker" ];
  args = [ "-c" "\${''${waitForTest(`nested-${name}`)}; ${prologue}; nix-store --add /bin/sh > $out; :''}" ]; }
END
nix-build --no-out-link nested.nix > $out`;
}

describe.each(lab.versions)("lifetime [daemon %s]", (version) => {
  let recursive: RecursiveLab;
  beforeAll(async () => {
    recursive = await RecursiveLab.start(version, { sandboxPaths: ["/signal=/tmp/signal"] });
    await recursive.daemon.run(["mkdir", "/tmp/signal"]);
  });
  afterAll(() => recursive?.stop());

  const host = (path: string): string => recursive.daemon.hostPath(path);
  const sandboxes = (): string[] => {
    const folder = host("/run/nix-broker/sandboxes");
    return existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith(".")) : [];
  };
  const isOf = (name: string, id: string): boolean => {
    try {
      const record = readFileSync(host(`/run/nix-broker/sandboxes/${id}/sandbox.json`), "utf8");
      return JSON.parse(record).drvPath.endsWith(`-${name}.drv`);
    } catch {
      // The linker removed it since it was listed.
      return false;
    }
  };
  const go = (id: string): void => writeFileSync(host(`/run/nix-broker/sandboxes/${id}/socket.d/go`), "");
  const sandboxOf = (name: string): Promise<string> =>
    until(() =>
      sandboxes().find((id) => isOf(name, id) && !existsSync(host(`/run/nix-broker/sandboxes/${id}/ended`))),
    );
  const reachedMark = (name: string): Promise<void> => recursive.daemon.fileInBuild(`mark-${name}`);
  const start = (name: string, script: string) =>
    recursive.daemon.tryBuild(sandboxScript(script, { name, features: ["nix-broker"] }));
  const references = async (path: string): Promise<string[]> => {
    const { stdout } = await recursive.daemon.run(["nix-store", "-q", "--references", path]);
    return stdout
      .trim()
      .split("\n")
      .map((line) => line.replace(/^.*?-/, ""));
  };

  test.each<NodeJS.Signals>(["SIGKILL", "SIGTERM"])(
    "G6: the service gets %s while an outer build runs: the build goes on with its successor",
    async (kill) => {
      const name = `service-${kill.toLowerCase()}`;
      const building = start(name, twoStages(name));
      const id = await sandboxOf(name);
      await reachedMark(name);
      await recursive.broker?.stop(kill);
      await recursive.daemon.run(["nix-store", "--gc"]);
      await recursive.startService();
      go(id);
      const { code, out, log } = await building;
      expect(log).not.toContain("error:");
      expect(code).toBe(0);
      expect((await references(out)).sort()).toEqual([`${name}-after`, `${name}-before`]);
    },
  );

  /** Builds a derivation that waits for the test. */
  const waitingInner = (name: string) =>
    `nix-build --no-out-link --expr 'derivation { name = "${name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo > began-${name}; while ! test -e /signal/${name}; do :; done; echo ${name} > $out; :" ]; }'`;
  const signal = (name: string): string => host(`/tmp/signal/${name}`);

  test("G6: asked to stop while an inner build runs, the service stops when its result has been linked", async () => {
    const name = "drained";
    const building = start(
      name,
      `${prologue}\none=$(${waitingInner("drained-inner")})\ncat $one > $out; echo $one >> $out`,
    );
    await recursive.daemon.fileInBuild("began-drained-inner");
    const ended = recursive.broker?.stop();
    await until(() => !existsSync(recursive.broker?.hostSocket ?? "") || undefined);
    const { code } = (await recursive.broker?.cli("status")) ?? {};
    writeFileSync(signal("drained-inner"), "");
    await ended;
    const { code: built, log, out } = await building;
    expect(log).not.toContain("error:");
    expect(built).toBe(0);
    // People may look at what it waits for.
    expect(code).toBe(0);
    await recursive.startService();
    expect(await references(out)).toEqual(["drained-inner"]);
  });

  test("G6: asked to stop while an inner build with its own sandbox runs, the service serves it until it ends", async () => {
    const name = "drained-inside";
    const building = start(name, nestedStage(name, version));
    const id = await sandboxOf(`nested-${name}`);
    await reachedMark(`nested-${name}`);
    const ended = recursive.broker?.stop();
    await until(() => !existsSync(recursive.broker?.hostSocket ?? "") || undefined);
    // It connects only now.
    go(id);
    await ended;
    const { code, log } = await building;
    expect(log).not.toContain("error:");
    expect(code).toBe(0);
    await recursive.startService();
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

  test("G6: the service is killed in the middle of an inner build that has a sandbox of its own: both fail, the next try works", async () => {
    const name = "killed-inside";
    const script = nestedStage(name, version);
    const building = start(name, script);
    const id = await sandboxOf(`nested-${name}`);
    await reachedMark(`nested-${name}`);
    const begun = async (): Promise<Array<string | undefined>> =>
      (await recursive.audit())
        .filter(({ sandbox, op }) => sandbox === id && op === "begin")
        .map(({ reason }) => reason);
    // Killed at once, it might not have recorded the beginning yet.
    await until(async () => (await begun()).length > 0);
    await recursive.broker?.stop("SIGKILL");
    await recursive.startService();
    // The inner one was cancelled, or is refused: it must not go on as if it were an outer one.
    if (existsSync(host(`/run/nix-broker/sandboxes/${id}/socket.d`))) go(id);
    const { code, log } = await building;
    expect(code).not.toBe(0);
    expect(log).toMatch(/error/);
    const [first, ...resumed] = await begun();
    expect(first).toMatch(/^inner build asked for by sandbox [0-9a-z]{32}$/);
    for (const reason of resumed) expect(reason).toBe("inner build asked for by a sandbox that is gone");
    const added = (await recursive.audit()).filter(
      ({ sandbox, verdict, op }) => sandbox === id && verdict === "forward" && op.startsWith("Add"),
    );
    expect(added).toEqual([]);

    const folder = host(`/run/nix-broker/sandboxes/${id}`);
    await until(() => (!existsSync(folder) || existsSync(`${folder}/ended`) ? true : undefined));
    const again = start(name, script);
    const second = await sandboxOf(`nested-${name}`);
    go(second);
    expect((await again).code).toBe(0);
  });

  test("G6: an outer build that fails leaves no roots behind", async () => {
    const name = "fails";
    const { code } = await start(name, `${prologue}\none=$(${inner(`${name}-before`)})\nexit 3`);
    expect(code).not.toBe(0);
    await until(() => (sandboxes().length === 0 ? true : undefined));
    const left = readdirSync(host("/nix/var/nix/gcroots/nix-broker"));
    expect(left).toEqual([]);
    // The linker empties what was put aside, and nobody waits for that.
    await until(() =>
      readdirSync(host("/nix/var/nix/nix-broker-released")).length === 0 ? true : undefined,
    );
  });

  test("G9: a failed build frees its build user, though its client goes on building", async () => {
    const failing = sandboxScript("exit 3", { name: "fails-early", features: ["nix-broker"] });
    const other = sandboxScript("until [ -e /signal/go ]; do sleep 0.1; done; echo > $out", {
      name: "other",
    });
    const building = recursive.daemon.tryBuild(`[ (${failing}) (${other}) ]`, {
      args: ["--keep-going", "-j2"],
    });
    await until(() => (sandboxes().length > 0 ? true : undefined));
    // The default grace time is longer than any test.
    await until(() => (sandboxes().length === 0 ? true : undefined));
    await recursive.daemon.run(["touch", "/tmp/signal/go"]);
    const { log } = await building;
    expect(log).toMatch(/fails-early\.drv/);
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
