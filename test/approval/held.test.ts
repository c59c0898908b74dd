/**
 * What is there need not be built, whatever lies below it: the normal state of every machine is that the fetched files at
 * the bottom of all closures are gone. By graphs of nixpkgs' shape, in the profile of jails and in that of pure builds.
 */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { copyToCache, deletePaths, invent, packageGraph } from "../../lab/package-graph.ts";

const PACKAGES = "40";
const CACHE = "/var/cache/packages";

describe.each(lab.versions)("a jail on a machine that has some packages [daemon %s]", (version) => {
  let daemon: Daemon;
  let broker: TestBroker;

  const inJail = (argv: readonly string[]) =>
    daemon.run([...argv], { user: "alice", env: { NIX_REMOTE: `unix://${broker.socket}` } });
  const instantiate = async (attribute: string, salt: string): Promise<string> => {
    const made = await inJail([
      ...["nix-instantiate", packageGraph, "-A", attribute],
      ...["--arg", "packages", PACKAGES, "--argstr", "salt", salt],
    ]);
    expect(made.stderr.replaceAll(/^warning: .*$/gm, "").trim()).toBe("");
    return made.stdout.trim().replace(/!.*/, "");
  };
  const isValid = async (path: string): Promise<boolean> =>
    (await daemon.run(["nix-store", "--check-validity", path])).code === 0;
  /** The output `out` of a derivation that has others too. */
  const outputOf = async (derivation: string): Promise<string> => {
    const outputs = (await daemon.run(["nix-store", "-q", "--outputs", derivation])).stdout.split("\n");
    return outputs.find((path) => /-package-[0-9]+$/.test(path)) ?? "";
  };

  beforeAll(async () => {
    daemon = await lab.start(version, {
      config: `substituters = file://${CACHE}\nbinary-caches = file://${CACHE}\nrequire-sigs = false\n`,
    });
    broker = await startBroker(daemon, { profile: "agent", view: "store" });
  });
  afterAll(async () => {
    await broker?.stop();
    await daemon?.stop();
  });

  test("a package that is there is used and built upon, though nobody has its sources", async () => {
    const last = await instantiate("last", "there");
    const mine = await instantiate("mine", "there");
    await invent(daemon, [last]);
    expect((await inJail(["nix-store", "-r", last])).stderr).not.toContain("error");
    const built = await inJail(["nix-store", "-r", mine]);
    expect(built.stderr).not.toContain("error");
    expect(await daemon.run(["cat", built.stdout.trim()])).toMatchObject({
      stdout: expect.stringMatching(/package-39/),
    });
  });

  test("a package that a cache has is fetched, by name, by derivation, and below another; nothing below it is", async () => {
    const last = await instantiate("last", "cached");
    const mine = await instantiate("mine", "cached");
    await invent(daemon, [last]);
    const out = await outputOf(last);
    await vi.waitFor(() => deletePaths(daemon, [out]), { timeout: 60_000, interval: 500 });
    // What was not in the cache a moment ago may be in it now: a connection of the daemon's would remember.
    expect((await inJail(["nix-store", "-r", last, "--dry-run"])).stderr).toMatch(/will be built/);
    await invent(daemon, [last]);
    await copyToCache(daemon, CACHE, [out]);
    for (const ask of [
      ["nix-store", "-r", out],
      ["nix-store", "-r", last],
      ["nix-store", "-r", mine],
    ]) {
      // The broker keeps a client's connection, and with it its temporary roots, for a few seconds.
      await vi.waitFor(() => deletePaths(daemon, [out]), { timeout: 60_000, interval: 500 });
      expect(await isValid(out)).toBe(false);
      const dry = await inJail([...ask, "--dry-run"]);
      expect(dry.stderr).toMatch(/will be fetched/);
      const built = await inJail(ask);
      expect(built.stderr).not.toContain("error");
      expect(await isValid(out)).toBe(true);
    }
  });

  test("nothing that fetches is built: a package that nobody has is refused, with its source named", async () => {
    const mine = await instantiate("mine", "nowhere");
    const refused = await inJail(["nix-store", "-r", mine]);
    expect(refused.code).not.toBe(0);
    expect(refused.stderr).toMatch(/may not be built here: .*allows fixed-output derivations only if/);
  });
});
