import { existsSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { BrokeredLab, type BrokeredOptions } from "./brokered-lab.ts";

const features = ["nix-broker"];
const socketFolder = "/nix/var/nix/daemon-socket";

describe.each(lab.versions)("crashes and the collector [daemon %s]", (version) => {
  let brokered: BrokeredLab;
  afterEach(() => brokered?.stop());

  async function start(options: BrokeredOptions = {}): Promise<void> {
    brokered = await BrokeredLab.start(version, { rootConfig: "end_grace_seconds=1\n", ...options });
  }

  async function addText(name: string): Promise<string> {
    writeFileSync(brokered.daemon.hostPath(`/tmp/${name}`), `I am ${name}\n`);
    return brokered.add(`/tmp/${name}`);
  }

  const waitFor = (path: string) => `while [ ! -e ${path} ]; do sleep 0.2; done`;
  const collect = () => brokered.mustRun(["nix-store", "--gc"]);
  const isValid = async (path: string) =>
    (await brokered.daemon.run(["nix-store", "--check-validity", path])).code === 0;

  /** Builds an output that mentions a path that is linked in while it runs. */
  async function buildWithGain(
    name: string,
  ): Promise<{ id: string; inner: string; out: string; log: string }> {
    const inner = await addText(`inner-of-${name}`);
    const building = brokered.daemon.build(
      sandboxScript(`${waitFor(inner)}; cat ${inner}; echo ${inner} > $out`, { name, features }),
      { args: ["--out-link", `/tmp/result-${name}`] },
    );
    const id = await brokered.sandboxNamed(name);
    await brokered.gain(id, inner);
    return { id, inner, ...(await building) };
  }

  test("without the service, and without the linker, the build runs and finds out why there is no daemon", async () => {
    await start({ rootConfig: "hook_wait_ms=200\n" });
    const script = `test ! -e ${socketFolder}/socket; cat ${socketFolder}/README; echo > $out`;
    const nobody = await brokered.daemon.build(sandboxScript(script, { name: "nobody", features }));
    expect(nobody.log).toContain("There is no daemon in this sandbox: the linker of nix-broker does not run");
    await brokered.startLinker();
    const noService = await brokered.daemon.build(sandboxScript(script, { name: "no-service", features }));
    expect(noService.log).toContain(
      "There is no daemon in this sandbox: the nix-broker service does not run",
    );
    await brokered.killLinker();
    brokered.startStandIn();
    await brokered.daemon.build(
      sandboxScript(`until [ -S ${socketFolder}/socket ]; do sleep 0.1; done; echo > $out`, {
        name: "no-linker",
        features,
      }),
    );
    const id = brokered
      .sandboxIds()
      .find((each) => brokered.record(each).drvPath.endsWith("-no-linker.drv"))!;
    expect(brokered.record(id)).toMatchObject({
      kind: "refused",
      reason: expect.stringContaining("linker of nix-broker does not run"),
    });
  });

  test("G6: registering fails; the roots stay, and the linker tries again when it starts", async () => {
    await start({ rootConfig: "end_grace_seconds=1\nnix_store=/usr/bin/false\n" });
    await brokered.startLinker();
    brokered.startStandIn();
    const { id, inner, out, log } = await buildWithGain("fails-to-register");
    expect(brokered.ended(id)).toMatchObject({
      outcome: "pending",
      error: expect.stringContaining("/usr/bin/false"),
    });
    expect(log).toContain("will be tried again");
    expect(await brokered.references(out)).toEqual([]);
    await brokered.killLinker();
    await collect();
    expect(await isValid(inner)).toBe(true);

    writeFileSync(brokered.daemon.hostPath("/etc/nix-broker/root.conf"), "");
    await brokered.startLinker();
    await until(() => !existsSync(brokered.roots(id)) || undefined);
    expect(await brokered.references(out)).toEqual([inner]);
    expect(brokered.ended(id)).toMatchObject({ outcome: "registered" });
    await collect();
    expect(await isValid(inner)).toBe(true);
  });

  test("G6: the machine restarts before the post-build hook has run; nothing is lost", async () => {
    await start({ hooks: false, config: `pre-build-hook = ${BrokeredLab.preBuildHook}` });
    await brokered.startLinker();
    brokered.startStandIn();
    const { id, inner, out } = await buildWithGain("no-post-hook");
    await brokered.killLinker();
    brokered.stopStandIn();
    for (const folder of ["sandboxes", "derivations"]) rmSync(brokered.runtime(folder), { recursive: true });
    await collect();
    expect(await isValid(inner)).toBe(true);
    expect(await brokered.references(out)).toEqual([]);

    await brokered.startLinker();
    await until(() => !existsSync(`${brokered.roots(id)}.json`) || undefined);
    expect(existsSync(brokered.roots(id))).toBe(false);
    expect(await brokered.references(out)).toEqual([inner]);
  });

  test("G6: a build whose derivation was collected before it was settled is settled all the same", async () => {
    const config = `pre-build-hook = ${BrokeredLab.preBuildHook}\nkeep-derivations = false\n`;
    await start({ hooks: false, config });
    await brokered.startLinker();
    brokered.startStandIn();
    const { id, inner, out } = await buildWithGain("no-derivation");
    await brokered.killLinker();
    const { drvPath } = brokered.record(id);
    await collect();
    expect(await isValid(drvPath)).toBe(false);

    await brokered.startLinker();
    expect(await until(() => brokered.ended(id))).toMatchObject({
      outcome: "registered",
      references: { [out]: [inner] },
    });
    expect(existsSync(brokered.roots(id))).toBe(false);
  });

  test("G6: the daemon's worker is killed in the middle of a build; roots and folder are removed", async () => {
    await start();
    await brokered.startLinker();
    brokered.startStandIn();
    const inner = await addText("inner");
    const building = brokered.daemon.tryBuild(
      sandboxScript("while :; do sleep 0.1; done", { name: "killed", features }),
    );
    const id = await brokered.sandboxNamed("killed");
    await brokered.gain(id, inner);
    await brokered.daemon.kill(true);
    await building;
    await brokered.daemon.restart();
    expect(await until(() => brokered.ended(id))).toMatchObject({ outcome: "failed" });
    expect(readdirSync(brokered.daemon.hostPath("/nix/var/nix/gcroots/nix-broker"))).toEqual([]);
  });

  test("G6: while the collector runs all the time, what the output mentions is kept; the rest goes afterwards", async () => {
    await start();
    await brokered.startLinker();
    brokered.startStandIn();
    const [used, unused] = [await addText("used"), await addText("unused")];
    let building = true;
    const collecting = (async () => {
      while (building) await collect();
    })();
    const result = brokered.daemon.build(
      sandboxScript(
        `${waitFor(used)}; for i in $(seq 20); do cat ${used} ${unused} > /dev/null; sleep 0.2; done; echo ${used} > $out`,
        { name: "collected", features },
      ),
      { args: ["--out-link", "/tmp/result"] },
    );
    const id = await brokered.sandboxNamed("collected");
    // From 2.4 on Nix itself loses a result whose link is made between its two looks at the roots; this one is there before.
    symlinkSync(
      brokered.record(id).outputs.out!,
      brokered.daemon.hostPath("/nix/var/nix/gcroots/collected-by-test"),
    );
    // As the service does it: the root first, and then the question whether it was in time.
    for (const path of [unused, used]) {
      const again = await addText(path === used ? "used" : "unused");
      const base = path.slice("/nix/store/".length);
      symlinkSync(path, `${brokered.roots(id)}/${base}`);
      expect(await addText(path === used ? "used" : "unused")).toBe(again);
      await brokered.linker.link(id, path);
    }
    const { out } = await result;
    building = false;
    await collecting;
    expect(await brokered.references(out)).toEqual([used]);
    await collect();
    expect(await isValid(used)).toBe(true);
    expect(await isValid(unused)).toBe(false);
  });

  test("a signed store: the output verifies after its references were registered", async () => {
    const config = "secret-key-files = /etc/nix/key\n";
    await start({ config });
    const generate = [
      "nix-store",
      "--generate-binary-cache-key",
      "lab-1",
      "/etc/nix/key",
      "/etc/nix/key.pub",
    ];
    await brokered.mustRun(generate);
    await brokered.startLinker();
    brokered.startStandIn();
    const { inner, out } = await buildWithGain("signed");
    expect(await brokered.references(out)).toEqual([inner]);
    const verify =
      version === "2.3" ? "nix verify" : "nix --extra-experimental-features nix-command store verify";
    await brokered.mustRun([
      "bash",
      "-c",
      `${verify} --sigs-needed 1 --option trusted-public-keys "$(cat /etc/nix/key.pub)" ${out}`,
    ]);
  });

  test("kinds that cannot gain references are refused, each with its own reason", async () => {
    await start({
      config:
        "experimental-features = ca-derivations nix-command auto-allocate-uids cgroups\nauto-allocate-uids = true\n",
      systemFeatures: ["uid-range", "ca-derivations"],
      rootConfig: "hook_wait_ms=500\n",
    });
    await brokered.startLinker();
    brokered.startStandIn();
    const kinds: Record<string, { attributes?: Record<string, string>; features?: string[] }> = {
      "fixed-output": {
        attributes: {
          outputHashMode: '"flat"',
          outputHashAlgo: '"sha256"',
          outputHash: `"${"0".repeat(64)}"`,
        },
      },
    };
    if (version !== "2.3")
      kinds["content-addressed"] = {
        attributes: { __contentAddressed: "true", outputHashMode: '"recursive"', outputHashAlgo: '"sha256"' },
      };
    if (version === "2.26" || version === "2.34") kinds["uid-range"] = { features: ["uid-range"] };
    for (const [kind, { attributes = {}, features: more = [] }] of Object.entries(kinds)) {
      const { log } = await brokered.daemon.tryBuild(
        sandboxScript("echo > $out", { name: kind, features: [...features, ...more], attributes }),
      );
      const id = brokered.sandboxIds().find((each) => brokered.record(each).drvPath.endsWith(`-${kind}.drv`));
      expect(id, log).toBeDefined();
      expect(brokered.record(id!)).toMatchObject({ kind: "refused", reason: expect.stringContaining(kind) });
    }
    expect(Object.keys(kinds).length).toBeGreaterThan(0);
  });

  test("G6: a build whose input is content-addressed is an ordinary one, under the path that Nix resolved it to", async () => {
    await start({
      config: "experimental-features = ca-derivations nix-command\n",
      systemFeatures: ["ca-derivations"],
    });
    await brokered.startLinker();
    brokered.startStandIn();
    const inner = await addText("inner");
    const floating = sandboxScript("echo floating > $out", {
      name: "floating",
      attributes: { __contentAddressed: "true", outputHashMode: '"recursive"', outputHashAlgo: '"sha256"' },
    });
    const dependency = version === "2.3" ? sandboxScript("echo plain > $out", { name: "plain" }) : floating;
    const building = brokered.daemon.build(
      sandboxScript(`${waitFor(inner)}; cat $dependency; echo ${inner} $dependency > $out`, {
        name: "resolved",
        features,
        attributes: { dependency },
      }),
      { env: { NIX_CONFIG: "experimental-features = ca-derivations" } },
    );
    const id = await brokered.sandboxNamed("resolved");
    await brokered.gain(id, inner);
    const { out } = await building;
    expect(brokered.record(id).outputs).toEqual({ out });
    expect(await brokered.references(out)).toEqual(expect.arrayContaining([inner]));
    expect(await brokered.references(out)).toHaveLength(2);
  });

  test("a build without a sandbox: Nix runs no hook; a hook that is run without a chroot maps nothing", async () => {
    await start({ config: "sandbox = relaxed\n", rootConfig: "hook_wait_ms=200\n" });
    brokered.startStandIn();
    const attributes = { __noChroot: "true" };
    const expression = sandboxScript("test -e /host; echo > $out", {
      name: "no-chroot",
      features,
      attributes,
    });
    await brokered.daemon.build(expression);
    expect(brokered.sandboxIds()).toEqual([]);

    const drv = await brokered.mustRun(["nix-instantiate", "-E", expression]);
    const env = { NIX_BROKER_NODE: BrokeredLab.node };
    expect(await brokered.mustRun([BrokeredLab.preBuildHook, drv], env)).toBe("");
    expect(brokered.record(brokered.sandboxIds()[0]!)).toMatchObject({
      kind: "refused",
      chroot: null,
      reason: expect.stringContaining("not sandboxed"),
    });
  });

  test("G8: a hook whose worker was killed meanwhile leaves nothing behind", async () => {
    await start({ rootConfig: "hook_wait_ms=200\n" });
    const expression = sandboxScript("echo > $out", { name: "orphan", features });
    const drv = await brokered.mustRun(["nix-instantiate", "-E", expression]);
    // As after that, nobody has the locks of the outputs.
    const env = { NIX_BROKER_NODE: BrokeredLab.node };
    expect(await brokered.mustRun([BrokeredLab.preBuildHook, drv, `${drv}.chroot`], env)).toBe("");
    expect(brokered.sandboxIds()).toEqual([]);
    expect(readdirSync(brokered.daemon.hostPath("/nix/var/nix/gcroots"))).not.toContain("nix-broker");
  });

  test("root that uses the store without the daemon is refused", async () => {
    await start({ rootConfig: "hook_wait_ms=200\n" });
    brokered.startStandIn();
    await brokered.daemon.build(sandboxScript("echo > $out", { name: "direct", features }), {
      user: "root",
      env: { NIX_REMOTE: "", NIX_BROKER_NODE: BrokeredLab.node },
    });
    const id = brokered.sandboxIds()[0]!;
    expect(brokered.record(id)).toMatchObject({
      kind: "refused",
      worker: null,
      reason: expect.stringContaining("NIX_REMOTE=daemon"),
    });
  });
});
