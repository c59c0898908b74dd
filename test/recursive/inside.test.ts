/** What packages do with Nix inside of one build. */
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { RecursiveLab, ways } from "../../lab/recursive.ts";
import { innerDerivation, outer, writeFile } from "./scripts.ts";

const projectRoot = join(import.meta.dirname, "../..");
const config = "experimental-features = ca-derivations\n";
const serviceConfig = `
[profiles.floating]
extends = "build"
content_addressed = true
[hooks]
profile = "floating"
`;

describe.each(ways)("inside of an outer build [daemon %s, by %s]", (version, way) => {
  const hooks = way === "hooks";
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, {
      hooks,
      ...(version === "2.3" ? {} : { config }),
      serviceConfig,
      // On 2.3 a build fails, rather than waits, when no build user is free.
      buildUsers: 40,
    });
  });
  afterAll(async () => {
    const log = made?.broker?.process.exitCode === null ? "" : made?.broker?.log();
    await made?.stop();
    expect(log, "the service ended by itself").toBe("");
  });

  const read = async (path: string) => (await made.daemon.run(["cat", path])).stdout;
  const references = async (path: string) =>
    (await made.daemon.run(["nix-store", "-q", "--references", path])).stdout.trim().split("\n").sort();

  test("import-from-derivation", async () => {
    const generated = innerDerivation("generated", `echo '{ word = "generated"; }' > $out`);
    const user = innerDerivation("user", "echo $word > $out", { word: `(import (${generated})).word` });
    const { out } = await made.daemon.build(
      outer(`
${writeFile("user.nix", user)}
ln -s "$(nix-build --no-out-link user.nix)" $out`),
    );
    expect(await read(out)).toBe("generated\n");
  });

  test("G5: an inner derivation with several outputs", async () => {
    const several = innerDerivation(
      "several",
      "mkdir $out $dev $unused; echo $dev > $out/dev; echo header > $dev/header",
      { outputs: '[ "out" "dev" "unused" ]' },
    );
    const { out } = await made.daemon.build(
      outer(`
${writeFile("several.nix", several)}
result=$(nix-build --no-out-link several.nix)
dev=$(nix-build --no-out-link several.nix -A dev)
[ "$(cat $result/dev)" = "$dev" ]
derivation=$(nix-instantiate several.nix)
[ "$(nix-store -q --outputs $derivation | wc -l)" = 3 ]
mkdir $out
ln -s $result/dev $out/dev
cp $dev/header $out/`),
    );
    const [inner = "", ...others] = await references(out);
    expect(others).toEqual([]);
    expect(inner).toMatch(/-several$/);
    expect(await references(inner)).toEqual([expect.stringMatching(/-several-dev$/)]);
    expect(await read(`${out}/header`)).toBe("header\n");
  });

  const floatingAttributes = {
    __contentAddressed: "true",
    outputHashMode: '"recursive"',
    outputHashAlgo: '"sha256"',
  };
  const floating = innerDerivation("floating", "echo contents > $out", floatingAttributes);
  const dependent = innerDerivation("dependent", "echo $floating > $out", {
    ...floatingAttributes,
    floating,
  });
  const floatingScript = (expression: string) => `
export NIX_CONFIG="extra-experimental-features = ca-derivations"
${writeFile("floating.nix", expression)}
ln -s "$(nix-build --no-out-link floating.nix)" $out`;

  if (version === "2.3") {
    test("floating content-addressed inner derivations: a newer client is told that this version has none", async () => {
      const { log, code } = await made.daemon.tryBuild(
        outer(floatingScript(floating), { client: lab.versions.at(-1) ?? version }),
      );
      expect(code).not.toBe(0);
      expect(log).toContain("its output 'out' is content-addressed, which the nix-daemon of this machine");
    });
  } else {
    test("floating content-addressed inner derivations, where the profile allows them", async () => {
      const { out } = await made.daemon.build(outer(floatingScript(dependent)));
      const [inner = ""] = await references(out);
      expect(inner).toMatch(/-dependent$/);
      expect(await references(inner)).toEqual([expect.stringMatching(/-floating$/)]);
      expect(await read(out)).toBe(`${(await references(inner))[0]}\n`);
    });

    test("an ordinary inner derivation that needs a content-addressed one", async () => {
      const deferred = innerDerivation("deferred", "echo $floating > $out", { floating });
      const { out } = await made.daemon.build(outer(floatingScript(deferred)));
      const [inner = ""] = await references(out);
      expect(await references(inner)).toEqual([expect.stringMatching(/-floating$/)]);
    });
  }

  test("a fixed-output derivation", async () => {
    const fixed = innerDerivation("fixed", "printf fixed > $out", {
      outputHashAlgo: '"sha256"',
      outputHashMode: '"flat"',
      outputHash: 'builtins.hashString "sha256" "fixed"',
    });
    const { out } = await made.daemon.build(
      outer(`
${writeFile("fixed.nix", fixed)}
ln -s "$(nix-build --no-out-link fixed.nix)" $out`),
    );
    expect(await read(out)).toBe("fixed");
  });

  test("fetchTarball and fetchurl with a hash, when the source is an input", async () => {
    const { daemon } = made;
    mkdirSync(daemon.hostPath("/tmp/fetched/source"), { recursive: true });
    writeFileSync(daemon.hostPath("/tmp/fetched/source/file"), "from a tarball\n");
    const folder = daemon.hostPath("/tmp/fetched");
    execFileSync("tar", ["-C", folder, "-cf", `${folder}/source.tar`, "source"]);
    const hash = async (...args: string[]) =>
      (await daemon.run(["nix-hash", "--type", "sha256", "--base32", ...args])).stdout.trim();
    const treeHash = await hash("/tmp/fetched/source");
    const fileHash = await hash("--flat", "/tmp/fetched/source.tar");
    const tarball = (url: string) => `builtins.fetchTarball { url = "${url}"; sha256 = "${treeHash}"; }`;
    const file = (url: string) => `builtins.fetchurl { url = "${url}"; sha256 = "${fileHash}"; }`;
    const host = "https://nowhere.invalid";
    const { out } = await daemon.build(
      outer(
        `
mkdir $out
# From a host that there is not, since the paths are in the store.
nix-instantiate --eval --strict -E 'builtins.readFile ((${tarball(`${host}/source.tar`)}) + "/file")' > $out/file
[ "$(nix-instantiate --eval --strict -E 'toString (${file(`${host}/source.tar`)})')" = "\\"$archive\\"" ]
# From an input's own place.
nix-instantiate --eval --strict -E 'toString (builtins.fetchTarball { url = "file://'$archive'"; sha256 = "${treeHash}"; })' > fetched
[ "$(cat fetched)" = "\\"$tree\\"" ]`,
        {
          attributes: {
            tree: tarball("file:///tmp/fetched/source.tar"),
            archive: file("file:///tmp/fetched/source.tar"),
          },
        },
      ),
    );
    expect(await read(`${out}/file`)).toBe('"from a tarball\\n"\n');
  });

  test("twenty inner builds in parallel", async () => {
    const expression = `{ number }: ${innerDerivation("parallel", "echo $number > $out", { number: "number" })}`;
    const { out } = await made.daemon.build(
      outer(`
${writeFile("parallel.nix", expression)}
mkdir $out
build() { ln -s "$(nix-build --no-out-link parallel.nix --argstr number $1)" $out/$1; }
pids=
for i in $(seq 20); do build $i & pids="$pids $!"; done
for pid in $pids; do wait $pid; done
[ "$(cat $out/* | sort -n | tr '\\n' ' ')" = "$(seq -s ' ' 20) " ]`),
    );
    expect(await references(out)).toHaveLength(20);
  });

  test("G6: an inner build opts in, and the outermost output refers to a result built inside it", async () => {
    const innermost = innerDerivation("innermost", "echo deep > $out");
    const inner = innerDerivation(
      "inner",
      `
export HOME="$PWD/home" PAGER=cat NIX_PAGER=cat; mkdir -p "$HOME"
${writeFile("innermost.nix", innermost)}
nix-build --no-out-link innermost.nix > $out`,
      { requiredSystemFeatures: '[ "nix-broker" ]' },
    );
    const { out } = await made.daemon.build(
      outer(`
${writeFile("inner.nix", inner)}
inner=$(nix-build --no-out-link inner.nix)
innermost=$(cat $inner)
[ "$(cat $innermost)" = deep ]
mkdir $out
ln -s $inner $out/inner
ln -s $innermost $out/innermost`),
    );
    const [first = "", second = "", ...others] = (await references(out)).sort((a, b) =>
      a.slice(44) < b.slice(44) ? -1 : 1,
    );
    expect(others).toEqual([]);
    expect([first, second]).toEqual([expect.stringMatching(/-inner$/), expect.stringMatching(/-innermost$/)]);
    expect(await references(first)).toEqual([second]);
  });

  test("a C program, a derivation a file: after a change of one file only that one is built again", async () => {
    const tcc = await lab.toolInside("tcc");
    const program = (name: string) => ({
      start: `
long write(int, const void *, unsigned long);
void _exit(int);
const char *greeting(void);
const char *name(void);
static void say(const char *text) { unsigned long n = 0; while (text[n]) n++; write(1, text, n); }
void _start(void) { say(greeting()); say(name()); _exit(0); }`,
      greeting: 'const char *greeting(void) { return "hello, "; }',
      name: `const char *name(void) { return "${name}"; }`,
    });
    const compile = `{ file }: ${innerDerivation("object.o", `${tcc} -c $file -o $out`, { file: "file" })}`;
    const build = (name: string) =>
      outer(
        `
mkdir sources
${Object.entries(program(name))
  .map(([file, text]) => writeFile(`sources/${file}.c`, text))
  .join("\n")}
${writeFile("object.nix", compile)}
cat > all.nix <<'END'
map (name: import ./object.nix { file = ./sources + "/\${name}.c"; }) [ "start" "greeting" "name" ]
END
mkdir $out
${tcc} -nostdlib -o $out/program $(nix-build --no-out-link all.nix) /lib/*-linux-gnu/libc.so.6
# What is linked does not name the objects.
[ "$($out/program)" = "hello, ${name}" ]`,
        { name: `program-${name}` },
      );
    const compiled = async () => {
      const { stdout } = await made.daemon.run(["sh", "-c", "ls -d /nix/store/*-object.o"]);
      return stdout.trim().split("\n");
    };
    const { out } = await made.daemon.build(build("world"));
    expect((await made.daemon.run([`${out}/program`])).stdout).toBe("hello, world");
    const before = await compiled();
    expect(before).toHaveLength(3);
    expect(await made.daemon.run([`${(await made.daemon.build(build("moon"))).out}/program`])).toMatchObject({
      stdout: "hello, moon",
    });
    const after = await compiled();
    expect(after).toEqual(expect.arrayContaining(before));
    expect(after).toHaveLength(4);
  });

  test("G6: the example of docs/recursive-nix.md", async () => {
    const page = readFileSync(join(projectRoot, "docs/recursive-nix.md"), "utf8");
    const [report = "", parts = ""] = [...page.matchAll(/^```nix\n(.*?)^```$/gms)].map(
      (match) => match[1] ?? "",
    );
    const folder = made.daemon.hostPath("/tmp/example");
    mkdirSync(`${folder}/project`, { recursive: true });
    writeFileSync(`${folder}/report.nix`, report);
    writeFileSync(`${folder}/project/parts.nix`, parts);
    writeFileSync(`${folder}/project/title`, "A title\n");
    // Without nixpkgs: Nix is in the sandbox's /usr.
    const stdenv = `import ${projectRoot}/lib/plain-stdenv.nix { system = builtins.currentSystem; shell = "/bin/bash"; path = [ "/usr/bin" "/bin" ]; }`;
    const { out } = await made.daemon.build(
      `import /tmp/example/report.nix { stdenv = ${stdenv}; nix = null; }`,
    );
    const [inner = "", ...others] = await references(out);
    expect(others).toEqual([]);
    expect(await read(inner)).toBe("A title\n");
    expect(await read(`${out}/title`)).toBe("A title\n");
    expect(await read(`${out}/copy`)).toBe("A title\n");
  });
});
