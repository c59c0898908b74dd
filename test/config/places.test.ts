import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { ownPlaces } from "../../src/config/places.ts";

const folder = mkdtempSync(join(tmpdir(), "nix-broker-places-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Her files are those of whoever runs the tests. */
const alice = { uid: process.getuid?.() || 4_000_000, name: "alice", home: "/home/alice" };

describe("the places of an ordinary user's own broker", () => {
  test("are below the XDG folders", () => {
    const environment = {
      XDG_RUNTIME_DIR: "/run/user/7/",
      XDG_STATE_HOME: "/srv/state",
      XDG_CONFIG_HOME: "/srv/etc",
    };
    expect(ownPlaces(environment, alice)).toMatchObject({
      configFile: "/srv/etc/nix-broker/config.toml",
      runtimeDir: "/run/user/7/nix-broker",
      controlDir: "/run/user/7/nix-broker/control",
      stateDir: "/srv/state/nix-broker",
      user: "alice",
    });
  });

  test("are below the home where the variables are not set, or relative, and nobody is logged in", () => {
    expect(ownPlaces({ HOME: "/srv/alice", XDG_STATE_HOME: "state" }, { ...alice, uid: 4_000_001 })).toEqual({
      configFile: "/srv/alice/.config/nix-broker/config.toml",
      runtimeDir: "/srv/alice/.local/state/nix-broker/run",
      controlDir: "/srv/alice/.local/state/nix-broker/run/control",
      stateDir: "/srv/alice/.local/state/nix-broker",
      gcrootsDir: "/srv/alice/.local/state/nix-broker/gcroots",
      user: "alice",
    });
  });

  test("root and the service's user have none", () => {
    expect(ownPlaces({ HOME: "/root" }, { ...alice, uid: 0 })).toBeUndefined();
    expect(ownPlaces({ HOME: "/" }, { ...alice, name: "nix-broker" })).toBeUndefined();
  });
});

describe("which configuration an ordinary user has", () => {
  const home = join(folder, "home");
  const environment = { HOME: home };
  const load = (path?: string) => loadConfig({ path, environment, user: alice, own: true });

  test("none: the defaults, in folders of their own", async () => {
    const { file, runtime, audit } = await load();
    expect(file).toBeUndefined();
    expect(runtime.stateDir).toBe(`${home}/.local/state/nix-broker`);
    expect(audit.path).toBe(`${home}/.local/state/nix-broker/audit`);
  });

  test("their own file, which may be a link; what it names is as it says", async () => {
    const named = join(folder, "shared.toml");
    writeFileSync(named, '[runtime]\nstate_dir = "/srv/mine"\n');
    mkdirSync(`${home}/.config/nix-broker`, { recursive: true });
    symlinkSync(named, `${home}/.config/nix-broker/config.toml`);
    const { file, runtime } = await load();
    expect(file).toBe(`${home}/.config/nix-broker/config.toml`);
    expect(runtime).toMatchObject({
      stateDir: "/srv/mine",
      controlDir: "/srv/mine/control",
      dir: `${home}/.local/state/nix-broker/run`,
      user: "alice",
    });
  });

  test("a file that is named, and is somebody else's, describes the system's broker", async () => {
    const named = join(folder, "theirs.toml");
    writeFileSync(named, "");
    const theirs = await loadConfig({ path: named, environment, user: { ...alice, uid: alice.uid + 1 } });
    expect(theirs.runtime).toMatchObject({ stateDir: "/var/lib/nix-broker", user: "nix-broker" });
    const own = process.getuid?.() === 0 ? "/var/lib/nix-broker" : `${home}/.local/state/nix-broker`;
    expect((await load(named)).runtime.stateDir).toBe(own);
  });
});
