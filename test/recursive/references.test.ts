/** What keeps the paths that an outer build's result mentions, during the build and afterwards. */
import { existsSync, symlinkSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RecursiveLab, ways } from "../../lab/recursive.ts";
import { field, innerDerivation, outer, writeFile } from "./scripts.ts";

describe.each(ways)("references of outer builds [daemon %s, by %s]", (version, way) => {
  const hooks = way === "hooks";
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { hooks, config: "secret-key-files = /etc/nix/key\n" });
    await run("nix-store", "--generate-binary-cache-key", "lab-1", "/etc/nix/key", "/etc/nix/key.pub");
  });
  afterAll(() => made?.stop());

  async function run(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await made.daemon.run(argv);
    expect(code, `${argv.join(" ")}: ${stderr}`).toBe(0);
    return stdout;
  }
  const inStore = (path: string) => existsSync(made.daemon.hostPath(path));
  const isValid = async (path: string) =>
    (await made.daemon.run(["nix-store", "-q", "--hash", path])).code === 0;

  test("G6: when only the result is rooted, the paths it mentions are kept, and nothing else", async () => {
    const library = innerDerivation("library", 'echo "echo from the library" > $out');
    const program = innerDerivation("program", "mkdir $out; echo . $library > $out/program", { library });
    const unused = innerDerivation("unused", "echo unused > $out");
    const { out, log } = await made.daemon.build(
      outer(`
${writeFile("program.nix", program)}
${writeFile("unused.nix", unused)}
echo mentioned > mentioned
echo not > not-mentioned
program=$(nix-build --no-out-link program.nix)
mentioned=$(nix-store --add ./mentioned)
mkdir $out
ln -s $program/program "$out/program"
# In the name of a file.
touch "$out/$(basename $mentioned)"
echo unused=$(nix-build --no-out-link unused.nix) >&2
echo notMentioned=$(nix-store --add ./not-mentioned) >&2
echo program=$program >&2
echo library=$(nix-store -q --references $program) >&2
echo mentioned=$mentioned >&2`),
      { args: ["--out-link", "/tmp/kept"] },
    );
    const [kept, lost] = [
      ["program", "library", "mentioned"].map((name) => field(log, name)),
      ["unused", "notMentioned"].map((name) => field(log, name)),
    ];
    expect(new Set([...kept, ...lost].filter(inStore)).size).toBe(5);
    await run("nix-collect-garbage");
    expect(await Promise.all(kept.map(isValid))).toEqual([true, true, true]);
    expect([...kept, ...lost].filter(inStore)).toEqual(kept);
    expect(await run("sh", `${out}/program`)).toBe("from the library\n");
    await run("nix-store", "--verify-path", out, ...kept);
  });

  test("G6: a build loses nothing while the garbage collector runs all the time", async () => {
    // Each step builds on what the one before has made.
    const step = innerDerivation("step", "mkdir $out; cat $before $source > $out/text", {
      before: "builtins.storePath before",
      source: "builtins.storePath source",
    });
    const expression = outer(
      `
${writeFile("step.nix", `{ before, source }: ${step}`)}
before=$first
for i in 1 2 3 4 5 6; do
  echo $i > source
  source=$(nix-store --add ./source)
  before=$(nix-build --no-out-link step.nix --argstr before $before --argstr source $source)
  all="$all $before $source"
  before=$(nix-store --add $before/text)
done
nix-store -q --hash $all > /dev/null
[ "$(cat $before)" = "$(seq 6)" ]
printf '%s\\n' $all > $out`,
      { name: "collected", attributes: { first: 'builtins.toFile "first" ""' } },
    );
    // From 2.4 on Nix itself can lose a result whose link is made between its two looks at the roots: this one is there before.
    const derivation = (await run("nix-instantiate", "-E", expression)).trim();
    const result = (await run("nix-store", "-q", "--outputs", derivation)).trim();
    symlinkSync(result, made.daemon.hostPath("/nix/var/nix/gcroots/collected"));

    let building = true;
    let collections = 0;
    const collecting = (async () => {
      while (building) {
        await run("nix-collect-garbage");
        collections++;
      }
    })();
    const { out } = await made.daemon.build(expression);
    building = false;
    await collecting;
    expect(collections).toBeGreaterThan(1);
    expect(out).toBe(result);
    await run("nix-collect-garbage");
    const all = (await run("cat", out)).trim().split("\n");
    expect(all).toHaveLength(12);
    expect(await Promise.all(all.map(isValid))).toEqual(all.map(() => true));
    await run("nix-store", "--verify-path", ...all);
  });

  test("a signed store: the result and its closure verify", async () => {
    const inner = innerDerivation("signed-inner", "echo inner > $out");
    const { out } = await made.daemon.build(
      outer(
        `
${writeFile("inner.nix", inner)}
ln -s "$(nix-build --no-out-link inner.nix)" $out`,
        { name: "signed" },
      ),
    );
    const verify =
      version === "2.3" ? ["verify"] : ["--extra-experimental-features", "nix-command", "store", "verify"];
    const key = (await run("cat", "/etc/nix/key.pub")).trim();
    await run(
      "nix",
      ...verify,
      "--recursive",
      "--sigs-needed",
      "1",
      "--option",
      "trusted-public-keys",
      key,
      out,
    );
    expect((await run("nix-store", "-qR", out)).trim().split("\n")).toHaveLength(2);
  });

  test("a result that allows no references: whoever built it is told of those that it gained", async () => {
    const inner = innerDerivation("forbidden", "echo forbidden > $out");
    const { out, log } = await made.daemon.build(
      outer(
        `
${writeFile("inner.nix", inner)}
ln -s "$(nix-build --no-out-link inner.nix)" $out`,
        { name: "allowing-nothing", attributes: { allowedReferences: "[ ]" } },
      ),
    );
    const reference = (await run("nix-store", "-q", "--references", out)).trim();
    expect(reference).toMatch(/-forbidden$/);
    expect(log).toContain(`output '${out}' is not allowed to refer to '${reference}'`);
  });
});
