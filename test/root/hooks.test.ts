import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { BrokeredLab } from "./brokered-lab.ts";

const features = ["nix-broker"];

describe.each(lab.versions)("hooks and linker [daemon %s]", (version) => {
  let brokered: BrokeredLab;

  beforeAll(async () => {
    brokered = await BrokeredLab.start(version, { rootConfig: "end_grace_seconds=1\n" });
    await brokered.startLinker();
    brokered.startStandIn();
  });
  afterAll(() => brokered?.stop());

  /** Adds a folder with a text, a symlink and a program; returns its path. */
  async function addTree(name: string): Promise<string> {
    const folder = brokered.daemon.hostPath(`/tmp/${name}`);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(join(folder, "below"), { recursive: true });
    writeFileSync(join(folder, "text"), `I am ${name}\n`);
    writeFileSync(join(folder, "below/run"), `#!/bin/sh\necho ran ${name}\n`);
    chmodSync(join(folder, "below/run"), 0o755);
    symlinkSync("text", join(folder, "link"));
    return brokered.add(`/tmp/${name}`);
  }

  /** The store path as a script that Nix takes no reference from. */
  const wait = (path: string) => `while [ ! -e ${path} ]; do sleep 0.2; done`;

  test("G5, G6: a path linked into a running build is usable there, cannot be altered, and becomes a reference", async () => {
    const inner = await addTree("inner");
    const other = await addTree("other");
    const building = brokered.daemon.build(
      sandboxScript(
        `${wait(inner)}; ${wait(other)}
        test "$(cat ${inner}/link)" = "I am inner"
        ${inner}/below/run
        for attempt in "rm -r ${inner}" "mv ${inner} ${inner}-2" "touch ${inner}/new" "chmod -R u+w ${inner}" "rmdir ${inner}"; do
          if $attempt; then echo "DONE: $attempt"; exit 1; fi
        done
        if (echo x > ${inner}/text); then exit 1; fi
        mkdir $out; ln -s ${inner}/below/run $out/run`,
        { name: "usable", features },
      ),
    );
    const id = await brokered.sandboxNamed("usable");
    await brokered.gain(id, inner);
    await brokered.gain(id, other);
    const { out, log } = await building;
    expect(log).toContain("ran inner");
    expect(await brokered.references(out)).toEqual([inner]);
    expect(brokered.ended(id)).toMatchObject({
      outcome: "registered",
      references: { [out]: [inner] },
      violations: [],
      error: "",
    });
    expect(existsSync(brokered.roots(id))).toBe(false);
    expect(existsSync(`${brokered.roots(id)}.json`)).toBe(false);
    expect(brokered.record(id)).toMatchObject({ kind: "ok", origin: "hook", outputs: { out } });
    await brokered.linker.release(id);
    expect(brokered.sandboxIds()).not.toContain(id);
    const verified = await brokered.daemon.run(["nix-store", "--verify", "--check-contents"]);
    expect(verified.stderr).not.toMatch(/modified|mismatch|disappeared/);
  });

  test("G6: what is mentioned in names, in targets of symlinks and in several outputs is found; nothing else is", async () => {
    const [a, b, c] = [await addTree("in-name"), await addTree("in-target"), await addTree("unused")];
    const building = brokered.daemon.build(
      sandboxScript(`${wait(c)}; mkdir $out $dev; touch $out/$(basename ${a}); ln -s ${b} $dev/link`, {
        name: "several",
        features,
        attributes: { outputs: '["out" "dev"]' },
      }),
      { args: ["-A", "all"] },
    );
    const id = await brokered.sandboxNamed("several");
    for (const path of [a, b, c]) await brokered.gain(id, path);
    await building;
    const { outputs } = brokered.record(id);
    expect(await brokered.references(outputs.out!)).toEqual([a]);
    expect(await brokered.references(outputs.dev!)).toEqual([b]);
  });

  test("a client inside finds the daemon and our settings", async () => {
    const known = await addTree("known");
    const hash = await brokered.mustRun(["nix-store", "-q", "--hash", known]);
    const { log } = await brokered.daemon.build(
      sandboxScript(
        `export HOME=$TMPDIR
        for client in ${lab.versions.join(" ")}; do
          echo "CLIENT $client: $(PATH=/lab/$client/bin:$PATH nix-store -q --hash ${known} 2>/dev/null)"
          PATH=/lab/$client/bin:$PATH nix-instantiate --eval -E '1 + 1'
        done
        test -e /etc/nix/registry.json
        if touch /etc/nix/mine; then exit 1; fi
        if touch /nix/var/nix/daemon-socket/mine; then exit 1; fi
        echo > $out`,
        { name: "client", features },
      ),
    );
    for (const client of lab.versions) expect(log).toContain(`CLIENT ${client}: ${hash}`);
  });

  test("a build that does not opt in gets nothing, even if it names us", async () => {
    const before = brokered.sandboxIds();
    await brokered.daemon.build(
      sandboxScript("if test -e /etc/nix/nix.conf; then exit 1; fi; echo nix-broker > $out"),
    );
    expect(brokered.sandboxIds()).toEqual(before);
  });

  test.each([
    [
      "fixed-output",
      { outputHashMode: '"flat"', outputHashAlgo: '"sha256"', outputHash: `"${"0".repeat(64)}"` },
    ],
  ])("a refused kind (%s) gets a sandbox that says why", async (kind, attributes) => {
    const name = `refused-${version.replace(".", "-")}`;
    await brokered.daemon.tryBuild(
      sandboxScript("test -S /nix/var/nix/daemon-socket/socket; sleep 1; echo > $out", {
        name,
        features,
        attributes,
      }),
    );
    const id = brokered.sandboxIds().find((each) => brokered.record(each).drvPath.endsWith(`-${name}.drv`))!;
    expect(brokered.record(id)).toMatchObject({ kind: "refused", reason: expect.stringContaining(kind) });
    await expect(brokered.linker.link(id, await addTree("refused"))).rejects.toMatchObject({
      code: "not-linkable",
      message: expect.stringContaining(kind),
    });
  });

  test("G6: a build that fails releases its roots, though the client goes on", async () => {
    const inner = await addTree("lost");
    const building = brokered.daemon.tryBuild(
      `[ (${sandboxScript(`${wait(inner)}; exit 1`, { name: "fails", features })})
         (${sandboxScript("while [ ! -e /nope ]; do sleep 0.1; done", { name: "goes-on" })}) ]`,
      { args: ["--keep-going", "-j2", "--timeout", "8"] },
    );
    const id = await brokered.sandboxNamed("fails");
    await brokered.gain(id, inner);
    expect(readdirSync(brokered.roots(id))).toHaveLength(1);
    const end = await until(() => brokered.ended(id));
    expect(end).toMatchObject({ outcome: "failed", references: {} });
    expect(existsSync(brokered.roots(id))).toBe(false);
    await expect(brokered.linker.link(id, inner)).rejects.toMatchObject({ code: "not-linkable" });
    await building;
  });

  test("G8: what a hostile service puts among the roots does no harm", async () => {
    const inner = await addTree("honest");
    const victim = await addTree("victim");
    const building = brokered.daemon.build(
      sandboxScript(`${wait(inner)}; echo ${inner} > $out; echo ${victim} >> $out`, {
        name: "hostile-roots",
        features,
      }),
    );
    const id = await brokered.sandboxNamed("hostile-roots");
    const base = victim.slice("/nix/store/".length);
    for (const name of [
      `${base}\n${base}`,
      `${base}\n`,
      "x",
      `${"0".repeat(32)}-invalid`,
      `${base}.lock`,
      "-rf",
    ])
      writeFileSync(join(brokered.roots(id), name), "");
    symlinkSync("/etc", join(brokered.roots(id), "etc"));
    mkdirSync(join(brokered.roots(id), "folder/below"), { recursive: true });
    await brokered.gain(id, inner);
    const { out } = await building;
    expect(await brokered.references(out)).toEqual([inner]);
    expect(existsSync(brokered.roots(id))).toBe(false);
    expect(existsSync("/etc/passwd")).toBe(true);
  });

  test("allowedReferences and kin are checked again: the client and the record hear of it", async () => {
    const inner = await addTree("forbidden");
    const building = brokered.daemon.build(
      sandboxScript(`${wait(inner)}; echo ${inner} > $out`, {
        name: "checked",
        features,
        attributes: { allowedReferences: "[]" },
      }),
    );
    const id = await brokered.sandboxNamed("checked");
    await brokered.gain(id, inner);
    const { out, log } = await building;
    const message = `output '${out}' is not allowed to refer to '${inner}'`;
    expect(brokered.ended(id)).toMatchObject({ violations: [expect.stringContaining(message)] });
    expect(log).toContain(message);
    expect(await brokered.references(out)).toEqual([inner]);
  });

  test("G6: the linker is killed and restarted while a build runs; the build goes on", async () => {
    const [before, after] = [await addTree("before"), await addTree("after")];
    const building = brokered.daemon.build(
      sandboxScript(`touch began; ${wait(before)}; ${wait(after)}; echo ${before} ${after} > $out`, {
        name: "restarted",
        features,
      }),
    );
    const id = await brokered.sandboxNamed("restarted");
    // A hook that still waits for the linker would have another sandbox made for the build.
    await brokered.daemon.fileInBuild("began");
    await brokered.gain(id, before);
    await brokered.killLinker();
    const gained = brokered.gain(id, after);
    await brokered.startLinker();
    await gained;
    await brokered.linker.link(id, before);
    const { out } = await building;
    expect((await brokered.references(out)).sort()).toEqual([before, after].sort());
  });

  test("the hook's chain: prefilter and program run the next hooks with what Nix gave", async () => {
    const hostLog = brokered.daemon.hostPath("/tmp/next.log");
    const next = (name: string) => {
      const path = brokered.daemon.hostPath(`/tmp/${name}`);
      writeFileSync(path, `#!/bin/sh\necho "${name} $* $DRV_PATH" >> /tmp/next.log\n`, { mode: 0o755 });
      return `/tmp/${name}`;
    };
    const config = brokered.daemon.hostPath("/etc/nix-broker/root.conf");
    const previous = readFileSync(config, "utf8");
    writeFileSync(
      config,
      `${previous}next_pre_build_hook=${next("next-pre")}\nnext_post_build_hook=${next("next-post")}\n`,
    );
    try {
      for (const [name, asked] of [
        ["chained-plain", []],
        ["chained-brokered", features],
      ] as const) {
        await brokered.daemon.build(sandboxScript("echo > $out", { name, features: asked }));
        const lines = readFileSync(hostLog, "utf8").split("\n");
        expect(lines.filter((line) => line.includes(`-${name}.drv`))).toEqual([
          expect.stringMatching(/^next-pre \/nix\/store\/\S+\.drv \/nix\/store\/\S+\.chroot/),
          expect.stringMatching(/^next-post {2}\/nix\/store\/\S+\.drv$/),
        ]);
      }
    } finally {
      writeFileSync(config, previous);
    }
  });
});
