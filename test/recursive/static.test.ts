/** Sandboxes of builds by `extra-sandbox-paths` alone: every build sees one socket, and the broker finds out which build calls. */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../lab/lab.ts";
import { RecursiveLab } from "./fixture.ts";
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
    `touch at-${name}; until [ -e /nix/var/nix/daemon-socket/go ]; do sleep 0.05; done`;
  const atPause = async (name: string) => {
    // Build folders are in one place or another, by version.
    const find = ["find", "/tmp", "/nix/var/nix/builds", "-name", `at-${name}`];
    while ((await made.daemon.run(find)).stdout === "") await sleep(20);
  };
  const go = () => writeFileSync(made.daemon.hostPath("/var/lib/nix-broker/service/s/go"), "");
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

  test("G1, G6: two builds at the same socket have a view and roots each", async () => {
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
