/** Sandboxes of builds by `extra-sandbox-paths` alone: every build sees one socket, and the broker finds out which build calls. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { field, innerDerivation, outer, writeFile } from "./scripts.ts";

describe.each(lab.versions)("a static socket that builds see [daemon %s]", (version) => {
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { hooks: false, buildUsers: 40 });
  });
  afterAll(() => made?.stop());

  const references = async (path: string) =>
    (await made.daemon.run(["nix-store", "-q", "--references", path])).stdout.trim().split("\n").sort();
  /** In a builder: waits for the test, by way of the socket's folder, which every build sees. */
  const pause = (name: string) =>
    `touch at-${name}; until [ -e /nix/var/nix/daemon-socket/go ]; do sleep 0.2; done`;
  const atPause = (name: string) => made.daemon.fileInBuild(`at-${name}`);
  const goFile = () => made.daemon.hostPath("/var/lib/nix-broker/service/s/go");
  const go = () => writeFileSync(goFile(), "");
  const stay = () => rmSync(goFile());
  const rootsFolder = () => made.daemon.hostPath("/nix/var/nix/gcroots/nix-broker");

  test("G1, G5, G6: a build that opted in gets a sandbox of its own: view, linking, roots, references", async () => {
    const input = sandboxScript("echo input > $out", { name: "an-input" });
    const stranger = sandboxScript("echo stranger > $out", { name: "a-stranger" });
    const strangerOut = (await made.daemon.build(stranger)).out;
    const dependency = innerDerivation("dependency", "echo from the dependency > $out");
    const inner = innerDerivation("inner", "echo $dependency > $out", { dependency });
    const unused = innerDerivation("unused", "echo unused > $out");
    const script = `
${writeFile("inner.nix", inner)}
${writeFile("unused.nix", unused)}
view() { nix-store -q --hash "$1" > /dev/null 2>&1 && echo yes || echo no; }
echo "input=$(view $input)" >&2
echo "stranger=$(view $stranger)" >&2
result=$(nix-build --no-out-link inner.nix)
# The result and its closure are in this very sandbox.
cat "$(cat $result)"
echo "unused=$(nix-build --no-out-link unused.nix)" >&2
echo text > added
added=$(nix-store --add ./added)
[ "$(cat $added)" = text ]
ln -s $result $out`;
    const { out, log } = await made.daemon.build(
      outer(script, {
        name: "opted-in",
        attributes: { input, stranger: `builtins.unsafeDiscardStringContext "\${${stranger}}"` },
      }),
      { args: ["--out-link", "/tmp/kept"] },
    );
    expect(existsSync(made.daemon.hostPath(strangerOut))).toBe(true);
    expect(field(log, "input")).toBe("yes");
    expect(field(log, "stranger")).toBe("no");
    expect(log).toContain("from the dependency\n");

    const [result = "", ...others] = await references(out);
    expect(others).toEqual([]);
    expect(result).toMatch(/-inner$/);
    expect(await references(result)).toEqual([expect.stringMatching(/-dependency$/)]);
    expect(readdirSync(rootsFolder())).toEqual([]);
    const unusedOut = made.daemon.hostPath(field(log, "unused"));
    expect(existsSync(unusedOut)).toBe(true);
    await made.daemon.run(["nix-collect-garbage"]);
    expect(existsSync(unusedOut)).toBe(false);
    expect(existsSync(made.daemon.hostPath(result))).toBe(true);

    const begun = (await made.audit()).filter(
      (row) => row.kind === "sandbox" && row.reason === "outer build",
    );
    expect(begun).toHaveLength(1);
  });

  test("a build that did not opt in is told how to", async () => {
    const { code, log } = await made.daemon.tryBuild(
      sandboxScript(
        `export HOME=$PWD/home PAGER=cat; mkdir $HOME; nix-store -q --hash /nix/store/${"0".repeat(32)}-x`,
        { name: "did-not-ask" },
      ),
    );
    expect(code).not.toBe(0);
    expect(log).toContain('add requiredSystemFeatures = [ "nix-broker" ] to');
    expect(log).toMatch(/to [a-z0-9]{32}-did-not-ask\.drv/);
  });

  test("a build that cannot gain references is refused, with the reason", async () => {
    const { code, log } = await made.daemon.tryBuild(
      outer(`nix-store -q --hash /nix/store/${"0".repeat(32)}-x; echo never > $out`, {
        name: "fixed",
        attributes: {
          outputHash: 'builtins.hashString "sha256" "x"',
          outputHashAlgo: '"sha256"',
          outputHashMode: '"flat"',
        },
      }),
    );
    expect(code).not.toBe(0);
    expect(log).toContain("this is a fixed-output derivation");
  });

  test("G1, G6: two builds at the same socket each have their own view and roots", async () => {
    writeFileSync(made.daemon.hostPath("/tmp/shared"), "what both could add");
    const path = (await made.daemon.run(["nix-store", "--add", "/tmp/shared"])).stdout.trim();
    const one = made.daemon.build(
      outer(
        `printf 'what both could add' > shared; [ "$(nix-store --add ./shared)" = ${path} ]\n${pause("one")}\n: > $out`,
        {
          name: "one",
        },
      ),
    );
    await atPause("one");
    const two = await made.daemon.build(
      outer(`ls -d ${path} && exit 1; nix-store -q --hash ${path} 2> said && exit 1; cp said $out`, {
        name: "two",
      }),
    );
    expect(readFileSync(made.daemon.hostPath(two.out), "utf8")).toContain(`path '${path}' is not valid`);
    await made.daemon.run(["nix-collect-garbage"]);
    expect(existsSync(made.daemon.hostPath(path))).toBe(true);
    go();
    await one;
    stay();
  });

  /** Builds `before`, waits for the test, builds `after`; its output mentions both. */
  const twoStages = (name: string): string => {
    const stage = (which: string) =>
      `${writeFile(`${which}.nix`, innerDerivation(`${name}-${which}`, `echo ${which} > $out`))}
${which}=$(nix-build --no-out-link ${which}.nix)`;
    return outer(
      `${stage("before")}\n${pause(name)}\n${stage("after")}\n[ "$(cat $before $after)" = "before
after" ]\necho $before $after > $out`,
      { name },
    );
  };
  const mentions = (name: string) =>
    ["after", "before"].map((stage) => expect.stringMatching(new RegExp(`-${name}-${stage}$`)));
  const byName = (a: string, b: string) => (a.slice(44) < b.slice(44) ? -1 : 1);

  test.each<NodeJS.Signals>(["SIGKILL", "SIGTERM"])(
    "G6: the service gets %s while such a build runs: it goes on with its successor",
    async (kill) => {
      const name = `service-${kill.toLowerCase()}`;
      const building = made.daemon.build(twoStages(name));
      await atPause(name);
      await made.broker?.stop(kill);
      await made.daemon.run(["nix-store", "--gc"]);
      await made.startService();
      go();
      const { out } = await building;
      stay();
      expect((await references(out)).sort(byName)).toEqual(mentions(name));
    },
  );

  test("G5: the linker is killed while such a build runs: it goes on with its successor", async () => {
    const building = made.daemon.build(twoStages("linker-killed"));
    await atPause("linker-killed");
    await made.stopLinker("SIGKILL");
    await made.startLinker();
    go();
    const { out } = await building;
    stay();
    expect((await references(out)).sort(byName)).toEqual(mentions("linker-killed"));
  });

  test("G6: such a build that fails leaves no roots behind", async () => {
    const inner = writeFile("inner.nix", innerDerivation("in-vain", "echo in vain > $out"));
    const { code, log } = await made.daemon.tryBuild(
      outer(`${inner}\nnix-build --no-out-link inner.nix\nexit 3`, { name: "fails" }),
    );
    expect(code).not.toBe(0);
    expect(log).toMatch(/-in-vain/);
    await until(() => readdirSync(made.daemon.hostPath("/run/nix-broker/sandboxes")).length === 0);
    expect(readdirSync(rootsFolder())).toEqual([]);
  });

  test("G5: without the linker, such a build is refused, with the reason", async () => {
    await made.stopLinker();
    try {
      const { code, log } = await made.daemon.tryBuild(
        outer(`nix-store -q --hash /nix/store/${"0".repeat(32)}-x`, { name: "no-linker" }),
      );
      expect(code).not.toBe(0);
      expect(log).toContain("the linker does not answer");
    } finally {
      await made.startLinker();
    }
  });

  test("an inner build that opts in gets a sandbox of its own, one level deeper", async () => {
    const innermost = innerDerivation("innermost", "echo innermost > $out");
    const nested = innerDerivation(
      "nested",
      `export HOME=$PWD/home; mkdir $HOME\n${writeFile("innermost.nix", innermost)}\nln -s $(nix-build --no-out-link innermost.nix) $out`,
      { requiredSystemFeatures: '[ "nix-broker" ]', PATH: `"/lab/${version}/bin:/usr/bin:/bin"` },
    );
    const { out } = await made.daemon.build(
      outer(`${writeFile("nested.nix", nested)}\nln -s $(nix-build --no-out-link nested.nix) $out`, {
        name: "outermost",
      }),
    );
    const [result = ""] = await references(out);
    expect(result).toMatch(/-nested$/);
    expect(await references(result)).toEqual([expect.stringMatching(/-innermost$/)]);
    const begun = (await made.audit()).filter((row) => row.kind === "sandbox" && row.detail?.depth === 2);
    expect(begun).toHaveLength(1);
  });
});
