/**
 * Attacks on what a build request may run: caches that promise and do not deliver, paths that go between the look and the
 * build, more outputs that are wanted later, a connection that breaks. Whatever happens, nothing that fetches is run.
 */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { nixString, nixSystem } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { copyToCache, deletePaths } from "../../lab/package-graph.ts";
import { Tap } from "./tap.ts";

const CACHE = "/var/cache/lying";

/** `source` is what no jail may have fetched, though its builder would make it; `leaf` is a reference of `dep`. */
const expression = `
{ salt }:
let
  sh = name: text: extra: derivation ({
    inherit name salt; system = ${nixString(nixSystem)}; builder = "/bin/sh"; PATH = "/usr/bin:/bin"; args = [ "-c" text ];
  } // extra);
  source = derivation {
    name = "source-\${salt}"; system = ${nixString(nixSystem)}; builder = "/bin/sh"; args = [ "-c" "printf \${salt} > $out" ];
    outputHashAlgo = "sha256"; outputHashMode = "flat"; outputHash = builtins.hashString "sha256" salt;
  };
  leaf = sh "leaf" "echo leaf > $out; :" { };
  dep = sh "dep" "echo dep $leaf > $out; :" { inherit leaf source; };
  multi = sh "multi" "mkdir $out $dev; :" { outputs = [ "out" "dev" ]; inherit source; };
in {
  inherit source leaf dep multi;
  user = sh "user" "read x < $dep; echo $x > $out; :" { inherit dep; };
  usesOut = sh "uses-out" "echo \${multi.out} > $out; :" { };
  usesDev = sh "uses-dev" "echo \${multi.dev} > $out; :" { };
  both = sh "both" "echo $a $b > $out; :" { a = sh "a" "echo \${multi.out} > $out; :" { }; b = sh "b" "echo \${multi.dev} > $out; :" { }; };
}`;

describe.each(lab.versions)("nothing runs that was not judged [daemon %s]", (version) => {
  let daemon: Daemon;
  let tap: Tap;
  let broker: TestBroker;
  let salts = 0;

  const inJail = (argv: readonly string[]) =>
    daemon.run([...argv], { user: "alice", env: { NIX_REMOTE: `unix://${broker.socket}` } });
  const instantiate = async (attribute: string, salt: string): Promise<string> =>
    (
      await inJail(["nix-instantiate", "-E", expression, "-A", attribute, "--argstr", "salt", salt])
    ).stdout.trim();
  const outputs = async (derivation: string): Promise<string[]> =>
    (await daemon.run(["nix-store", "-q", "--outputs", derivation])).stdout.trim().split("\n");
  const asRoot = (script: string) => daemon.run(["bash", "-c", script], { env: { NIX_REMOTE: "" } });
  const areValid = async (paths: readonly string[]): Promise<boolean> =>
    (await daemon.run(["nix-store", "--check-validity", ...paths])).code === 0;

  /** Builds outside, where fetching is allowed; then the source is deleted, as it is on every machine. */
  async function prepare(attribute: string): Promise<{ salt: string; source: string }> {
    const salt = `s${salts++}`;
    const derivation = await instantiate(attribute, salt);
    const [source = ""] = await outputs(await instantiate("source", salt));
    const built = await daemon.run(["nix-store", "-r", derivation], { user: "alice" });
    expect(built.code, built.stderr).toBe(0);
    await deletePaths(daemon, [source]);
    return { salt, source };
  }

  async function refusedWithoutFetching(derivation: string, source: string): Promise<void> {
    const refused = await inJail(["nix-store", "-r", derivation]);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/source-s\d+\.drv' may not be built here: .*fixed-output/);
    expect(await areValid([source])).toBe(false);
  }

  beforeAll(async () => {
    daemon = await lab.start(version, {
      config: `substituters = file://${CACHE}\nbinary-caches = file://${CACHE}\nrequire-sigs = false\nnarinfo-cache-negative-ttl = 0\nnarinfo-cache-positive-ttl = 0\n`,
    });
    tap = await Tap.open(daemon);
    // The daemon sees the test as its client, which is root.
    broker = await startBroker(daemon, {
      profile: "agent",
      view: "store",
      config: `[upstream]\nsocket = "${tap.socket}"\nallow_trusted = true\n`,
    });
  });
  afterAll(async () => {
    await broker?.stop();
    tap?.close();
    await daemon?.stop();
  });

  test.each<[cache: string, spoil: (dep: string, leaf: string) => string]>([
    ["has lost the archive", () => `rm -f ${CACHE}/nar/*`],
    ["has a damaged archive", () => `for f in ${CACHE}/nar/*; do echo x > $f; done`],
    ["lacks a reference", (_, leaf) => `rm ${CACHE}/${hashPart(leaf)}.narinfo`],
    [
      "names another hash",
      (dep) =>
        `sed -i -E 's/^(NarHash: sha256:.{20})[0-9a-d]/\\1x/;t;s/^(NarHash: sha256:.{20})./\\1a/' ${CACHE}/${hashPart(dep)}.narinfo`,
    ],
  ])("a cache that %s", async (_, spoil) => {
    const { salt, source } = await prepare("dep");
    const [dep = ""] = await outputs(await instantiate("dep", salt));
    const [leaf = ""] = await outputs(await instantiate("leaf", salt));
    await asRoot(`rm -rf ${CACHE}`);
    await copyToCache(daemon, CACHE, [dep]);
    await deletePaths(daemon, [leaf]);
    await asRoot(spoil(dep, leaf));
    await refusedWithoutFetching(await instantiate("dep", salt), source);
    await refusedWithoutFetching(await instantiate("user", salt), source);
    expect(await areValid([dep])).toBe(false);
  });

  test("more outputs that are wanted are looked at, too", async () => {
    const { salt, source } = await prepare("multi");
    const multi = await outputs(await instantiate("multi", salt));
    const dev = multi.find((path) => path.endsWith("-dev")) ?? "";
    await asRoot(`rm -rf ${CACHE}`);
    await deletePaths(daemon, [dev]);
    expect((await inJail(["nix-store", "-r", await instantiate("usesOut", salt)])).code).toBe(0);
    await refusedWithoutFetching(await instantiate("usesDev", salt), source);
    await refusedWithoutFetching(await instantiate("both", salt), source);
    await refusedWithoutFetching(`${await instantiate("multi", salt)}!dev`, source);
    expect((await inJail(["nix-store", "-r", `${await instantiate("multi", salt)}!out`])).code).toBe(0);
  });

  test("what is held cannot go between the look and the build, whoever collects or deletes", async () => {
    const { salt, source } = await prepare("dep");
    const [dep = ""] = await outputs(await instantiate("dep", salt));
    const user = await instantiate("user", salt);
    let collected = "";
    tap.beforeBuild = async () => {
      const { stdout, stderr } = await asRoot(`nix-store --gc; nix-store --delete ${dep} ${user}; :`);
      collected = `${stdout}${stderr}`;
    };
    try {
      const built = await inJail(["nix-store", "-r", user]);
      expect(built.stderr).not.toContain("error");
      expect(collected).toMatch(/alive/);
      expect(await areValid([dep])).toBe(true);
      expect(await areValid([source])).toBe(false);
    } finally {
      tap.beforeBuild = () => {};
    }
  });

  test("a connection that breaks ends the request; it is not tried on another", async () => {
    const { salt, source } = await prepare("dep");
    const user = await instantiate("user", salt);
    const before = tap.builds;
    tap.beforeBuild = (upstream) => {
      upstream.destroy();
    };
    try {
      const broken = await inJail(["nix-store", "-r", user]);
      expect(broken.code).not.toBe(0);
      expect(broken.stderr).toContain("the connection to the nix-daemon broke");
      expect(tap.builds - before).toBe(1);
      expect(await areValid([source])).toBe(false);
    } finally {
      tap.beforeBuild = () => {};
    }
    expect((await inJail(["nix-store", "-r", user])).code).toBe(0);
  });

  test("G4: outputs are never requested by a wildcard: the daemon is asked for exactly what was judged", async () => {
    const { salt } = await prepare("multi");
    const asked: string[] = [];
    tap.beforeBuild = (_, request) => {
      asked.push(request);
    };
    try {
      const derivation = await instantiate("multi", salt);
      expect((await inJail(["nix-store", "-r", derivation])).code).toBe(0);
      expect(asked).toHaveLength(1);
      expect(asked[0]).toContain(`${derivation}!dev,out`);
      const unknown = await inJail(["nix-store", "-r", `${derivation}!nope`]);
      expect(unknown.stderr).toMatch(/no output '?nope|does not have.*nope|has no output/);
      expect(asked).toHaveLength(1);
    } finally {
      tap.beforeBuild = () => {};
    }
  });
});

function hashPart(path: string): string {
  return path.slice("/nix/store/".length, "/nix/store/".length + 32);
}
