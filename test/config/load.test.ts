import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { ConfigError } from "../../src/config/config-error.ts";
import { loadConfig, parseConfig } from "../../src/config/load.ts";
import { limitNames, limitTable } from "../../src/policy/limits.ts";

const folder = mkdtempSync(join(tmpdir(), "nix-broker-config-"));
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, text: string): string {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
}

/** The problems of a text, each as "LINE KEY: MESSAGE". */
async function problemsOf(text: string): Promise<string[]> {
  try {
    await parseConfig(text, "test.toml");
  } catch (error) {
    if (error instanceof ConfigError) {
      return error.problems.map(({ line, key, message }) => `${line} ${key}: ${message}`);
    }
    throw error;
  }
  return [];
}

describe("defaults", () => {
  test("an empty file is the stock multi-user installation (docs/configuration.md)", async () => {
    expect(await parseConfig("")).toMatchObject({
      file: undefined,
      upstream: {
        socket: "/nix/var/nix/daemon-socket/socket",
        command: undefined,
        storeDir: "/nix/store",
        nixStore: "nix-store",
        allowTrusted: false,
      },
      runtime: { dir: "/run/nix-broker", stateDir: "/var/lib/nix-broker", user: "nix-broker" },
      listen: [],
      hooks: { profile: { name: "build" }, nextPreBuildHook: "", nextPostBuildHook: "" },
      audit: { path: "/var/lib/nix-broker/audit", jsonLines: false },
      metrics: { listen: undefined },
      web: { listen: undefined },
      log: { level: "info" },
    });
  });

  test("an example with every table is accepted as it is", async () => {
    const config = await parseConfig(`
      [upstream]
      socket = "/nix/var/nix/daemon-socket/socket"
      store_dir = "/nix/store"
      nix_store = "nix-store"            # the command
      allow_trusted = false
      [runtime]
      dir = "/run/nix-broker"
      state_dir = "/var/lib/nix-broker"
      [[listen]]
      path = "/run/nix-broker/shared/socket"
      profile = "build"
      view = "empty"
      allow_uids = ["@nixbld"]
      [hooks]
      profile = "build"
      next_pre_build_hook = ""
      next_post_build_hook = ""
    `);
    expect(config.listen).toMatchObject([
      {
        path: "/run/nix-broker/shared/socket",
        profile: { name: "build" },
        view: "empty",
        allowUids: ["@nixbld"],
      },
    ]);
  });

  test("each limit can be set by its key, and is each profile's then", async () => {
    for (const name of limitNames) {
      const config = await parseConfig(`[limits]\n${limitTable[name].key} = 1`);
      expect(config.limits[name]).toBe(1);
      for (const profile of config.profiles.values()) expect(profile.limits[name]).toBe(1);
    }
  });
});

describe("values", () => {
  test("sizes and times may carry units; unlimited is unlimited", async () => {
    const { limits } = await parseConfig(
      '[limits]\ntext_bytes = "2 MiB"\nbuild_timeout = "2 h"\nidle = "90s"\nbuilds = "unlimited"\nbytes_added = 5',
    );
    expect(limits).toMatchObject({
      textBytes: 2 * 1024 ** 2,
      buildTimeout: 7200,
      idle: 90,
      builds: Number.POSITIVE_INFINITY,
      bytesAdded: 5,
    });
  });

  test("a bound that protects the service's memory cannot be unlimited", async () => {
    expect(await problemsOf('[limits]\ntext_bytes = "unlimited"')).toEqual([
      '2 limits.text_bytes: expected a number of bytes, or a text like "64 MiB", but it is "unlimited"',
    ]);
  });

  test.each([
    ["9464", { kind: "tcp", host: "127.0.0.1", port: 9464 }],
    ['"localhost:9464"', { kind: "tcp", host: "127.0.0.1", port: 9464 }],
    ['"[::1]:1"', { kind: "tcp", host: "::1", port: 1 }],
    ['"/run/x/metrics"', { kind: "unix", path: "/run/x/metrics" }],
    ['"unix:/run/x/metrics"', { kind: "unix", path: "/run/x/metrics" }],
  ])("metrics may listen on %s", async (text, endpoint) => {
    const config = await parseConfig(`[metrics]\nlisten = ${text}\ntoken_file = "/etc/nix-broker/token"`);
    expect(config.metrics.listen).toEqual(endpoint);
  });

  test.each(["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "broker.example.org:80"])(
    "nothing may listen where other machines reach it: %s",
    async (place) => {
      for (const section of ["metrics", "web"]) {
        expect((await problemsOf(`[${section}]\nlisten = "${place}"`)).join()).toContain(
          "is reachable from other machines",
        );
      }
    },
  );

  test("metrics on a port need a token", async () => {
    expect((await problemsOf("[metrics]\nlisten = 9464")).join()).toContain("set metrics.token_file as well");
  });

  test("the page's token has a file without being told", async () => {
    expect((await parseConfig('[web]\nlisten = 8080\n[runtime]\nstate_dir = "/srv/b"')).web).toEqual({
      listen: { kind: "tcp", host: "127.0.0.1", port: 8080 },
      tokenFile: "/srv/b/web-token",
    });
  });

  test("the memory of requests has to be enough for the longest one that the limits allow", async () => {
    expect((await parseConfig('[runtime]\nmemory = "512 MiB"')).runtime.memory).toBe(512 * 1024 ** 2);
    expect(await problemsOf('[runtime]\nmemory = "64 MiB"')).toEqual([
      '2 runtime.memory: the longest requests of the profile "query" (limits.request_bytes, limits.text_bytes) need at least 256 MiB, but it is 64 MiB',
    ]);
    expect(
      (await problemsOf('[profiles.wide]\nextends = "pure"\nlimits = { request_bytes = "64 MiB" }')).join(),
    ).toContain('profile "wide" (limits.request_bytes, limits.text_bytes) need at least 512 MiB');
    expect(
      await problemsOf(
        '[limits]\nrequest_bytes = "1 MiB"\ntext_bytes = "1 MiB"\n[runtime]\nmemory = "32 MiB"',
      ),
    ).toEqual([]);
  });

  test("an upstream command takes the place of the socket, and both together are refused", async () => {
    const command = 'command = ["ssh", "builder", "nix-daemon", "--stdio"]';
    expect((await parseConfig(`[upstream]\n${command}`)).upstream.command).toEqual([
      "ssh",
      "builder",
      "nix-daemon",
      "--stdio",
    ]);
    expect(await problemsOf(`[upstream]\nsocket = "/s"\n${command}`)).toEqual([
      "3 upstream.command: upstream.socket is set as well; keep one of the two",
    ]);
  });
});

test("a static socket can hand each client the sandbox of its own build; a profile cannot say so", async () => {
  expect((await parseConfig('[[listen]]\npath = "/s"\nview = "build"')).listen[0]?.view).toBe("build");
  expect((await problemsOf('[profiles.x]\nextends = "pure"\nview = "build"')).join()).toContain(
    "3 profiles.x.view: expected",
  );
});

test("builders and build users of per-build sandboxes have defaults, and can be set", async () => {
  expect((await parseConfig("")).hooks).toMatchObject({ allowUids: ["@nixbld"], buildUsers: undefined });
  expect((await parseConfig('[hooks]\nallow_uids = ["30001"]\nbuild_users = 8')).hooks).toMatchObject({
    allowUids: ["30001"],
    buildUsers: 8,
  });
});

describe("profiles", () => {
  test("one extends another, in any order, and changes only what it names", async () => {
    const config = await parseConfig(`
      [profiles.narrow]
      extends = "mirror"
      operations = ["query", "build"]
      limits = { builds = 7 }
      [profiles.mirror]
      extends = "build"
      fixed_outputs = ["https://mirror.example.org/*"]
      required_system_features = ["kvm"]
      [hooks]
      profile = "narrow"
    `);
    expect(config.hooks.profile).toMatchObject({
      name: "narrow",
      summary: "Extends mirror.",
      operations: { query: true, read: false, add: false, build: true },
      fixedOutputs: ["https://mirror.example.org/*"],
      requiredSystemFeatures: ["kvm"],
      limits: { ...config.limits, builds: 7 },
    });
  });

  test.each(["recursive-nix", "builder-rpc-v0", "uid-range"])("%s can never be allowed", async (feature) => {
    expect(
      (
        await problemsOf(`[profiles.x]\nextends = "build"\nrequired_system_features = ["kvm", "${feature}"]`)
      ).join(),
    ).toContain(`3 profiles.x.required_system_features: "${feature}" can never be allowed`);
  });

  test("a * in a list of names stands at the end of one", async () => {
    const wrong = await problemsOf('[profiles.x]\nextends = "build"\nimpure_env_vars = ["NIX_*", "*_proxy"]');
    expect(wrong.join()).toContain(
      '3 profiles.x.impure_env_vars: "*_proxy" has a * that is not its last character',
    );
  });

  test("circles, unknown names, and names that are taken are errors at their lines", async () => {
    expect(
      await problemsOf(
        '[profiles.a]\nextends = "b"\n[profiles.b]\nextends = "a"\n[profiles.pure]\nextends = "build"\n[profiles.c]\nextends = "biuld"\n[profiles.D]\nextends = "build"',
      ),
    ).toEqual([
      "2 profiles.a.extends: the profiles extend each other in a circle: a → b → a",
      "4 profiles.b.extends: the profiles extend each other in a circle: b → a → b",
      '5 profiles.pure: "pure" is a built-in profile; give yours another name and extend it',
      '8 profiles.c.extends: there is no profile "biuld"; did you mean "build"?',
      "9 profiles.D: a profile's name has at most 32 lower-case letters, digits and dashes, and starts with a letter",
    ]);
  });
});

describe("named jails", () => {
  test("are sockets below the runtime folder that see the whole store", async () => {
    const config = await parseConfig(
      '[runtime]\ndir = "/r"\n[jails.ci]\nallow_uids = ["alice"]\nlifetime = "8 h"\n[jails.web]\nallow_uids = ["*"]\nprofile = "pure"\n[[listen]]\npath = "/s"',
    );
    expect(config.listen.map(({ path, view, profile, jail }) => [path, view, profile.name, jail])).toEqual([
      ["/s", "empty", "build", undefined],
      ["/r/shared/jails/ci/socket", "store", "agent", { name: "ci", lifetime: 28_800 }],
      ["/r/shared/jails/web/socket", "store", "pure", { name: "web", lifetime: Number.POSITIVE_INFINITY }],
    ]);
  });

  test("a wrong name, a path that is taken, and an upstream elsewhere are errors", async () => {
    expect(
      await problemsOf(
        '[upstream]\ncommand = ["ssh"]\n[runtime]\ndir = "/r"\n[[listen]]\npath = "/r/shared/jails/ci/socket"\n[jails."../x"]\nallow_uids = ["alice"]\n[jails.ci]\nallow_uids = ["alice"]\nprofile = "agnt"',
      ),
    ).toEqual([
      "2 upstream.command: [jails] need the daemon of this machine, which keeps their roots",
      '7 jails."../x": a jail\'s name has at most 32 lower-case letters, digits and dashes, and starts with a letter',
      "9 jails.ci: listen[0] opens the same path, /r/shared/jails/ci/socket",
      '11 jails.ci.profile: there is no profile "agnt"; did you mean "agent"?',
    ]);
  });
});

describe("errors", () => {
  test("an unknown key is named with its line and the nearest known key", async () => {
    expect(
      await problemsOf(
        '[upstream]\n\n# words\nsockt = "/x"\n[[listen]]\npath = "/a"\n[[listen]]\npath = "/b"\nprofil = "x"',
      ),
    ).toEqual([
      '4 upstream.sockt: there is no such key; did you mean "socket"?',
      '9 listen[1].profil: there is no such key; did you mean "profile"?',
    ]);
  });

  test("a profile at a socket for builds, which would not be used, is an error", async () => {
    const listen = '[[listen]]\npath = "/x"\nview = "build"\nprofile = "pure"\n';
    expect((await problemsOf(listen)).join()).toContain(
      'listen[0].profile: builds always get hooks.profile ("build")',
    );
    expect(await problemsOf(`${listen}[hooks]\nprofile = "pure"`)).toEqual([]);
  });

  test("a wrong value is named with what was expected", async () => {
    expect(await problemsOf('[upstream]\nsocket = 5\nstore_dir = "nix"\nallow_trusted = "no"')).toEqual([
      "2 upstream.socket: expected an absolute path, but it is 5",
      '3 upstream.store_dir: expected an absolute path without "=", but it is "nix"',
      '4 upstream.allow_trusted: expected true or false, but it is "no"',
    ]);
  });

  test("a table in the wrong form is named", async () => {
    expect(await problemsOf("upstream = 3")).toEqual(["1 upstream: expected a table"]);
    expect(await problemsOf('[listen]\npath = "/x"')).toEqual([
      "1 listen: expected a list of tables, [[listen]]",
    ]);
  });

  test("line breaks in a path are refused: other programs read these values line by line", async () => {
    expect((await problemsOf('[hooks]\nnext_post_build_hook = "/a\\nservice_user=root"')).join()).toContain(
      "2 hooks.next_post_build_hook: expected",
    );
  });

  test("paths that the root programs would refuse are refused here already", async () => {
    for (const path of ["//", "/run/../etc", "/run/x=y", "/run/x ", "run"]) {
      expect(await problemsOf(`[runtime]\ndir = "${path}"`)).toEqual([
        `2 runtime.dir: expected an absolute path without "=", but it is "${path}"`,
      ]);
    }
  });

  test("an audit too small to keep anything is refused, as when the unit was forgotten", async () => {
    expect((await problemsOf("[audit]\nmax_bytes = 16")).join()).toMatch(
      /^2 audit.max_bytes: expected .* 1 MiB or more, or "unlimited", but it is 16$/,
    );
    expect(await problemsOf('[audit]\nmax_bytes = "1 MiB"')).toEqual([]);
  });

  test("a path of a socket is as long as its bytes are", async () => {
    expect(await problemsOf(`[runtime]\ndir = "/${"ü".repeat(30)}"`)).toEqual([
      "2 runtime.dir: is too long for the sockets below it: at most 48 bytes",
    ]);
  });

  test("what the schema cannot see is checked too", async () => {
    expect(
      await problemsOf(
        `[runtime]\ndir = "/${"r".repeat(60)}"\n[[listen]]\npath = "/s"\nview = [\n  "/nix/store/nothing",\n]\n[[listen]]\npath = "/s"\nprofile = "pur"\n[[listen]]\npath = "/${"l".repeat(107)}"`,
      ),
    ).toEqual([
      "2 runtime.dir: is too long for the sockets below it: at most 48 bytes",
      '6 listen[0].view[0]: "/nix/store/nothing" is not a store path: expected /nix/store/HASH-NAME',
      "9 listen[1].path: listen[0] opens the same path",
      '10 listen[1].profile: there is no profile "pur"; did you mean "pure"?',
      "12 listen[2].path: a Unix socket's path has at most 107 bytes, but this has 108",
    ]);
  });

  test("a file that is not valid TOML is named with its line", async () => {
    expect((await problemsOf('[upstream]\nsocket = "/x'))[0]).toMatch(/^2 : not valid TOML: /);
  });

  test("a value that does not fit hides no problem of the keys that do", async () => {
    const listen = (profile: string) =>
      `[[listen]]\npath = "/x"\nallow_uids = ["*"]\nprofile = "${profile}"\n`;
    expect(await problemsOf(`[log]\nlevel = 3\n${listen("bild")}${listen("pure")}`)).toEqual([
      expect.stringMatching(/^2 log\.level: /),
      '6 listen[0].profile: there is no profile "bild"; did you mean "build"?',
      "8 listen[1].path: listen[0] opens the same path",
    ]);
  });

  test.each([
    ["[profiles.mine]\nextends = 3\n[hooks]\nprofile = 'mine'\n", 1],
    ["[profiles]\nmine = 3\n[hooks]\nprofile = 'mine'\n", 1],
    ["[metrics]\nlisten = 9464\ntoken_file = 3\n", 1],
  ])("and none is made up by leaving it out: %j", async (text, count) => {
    expect(await problemsOf(text)).toHaveLength(count);
  });

  test("the message starts with the file and lists problems by line", async () => {
    await expect(parseConfig("b = 1\n", "/etc/x.toml")).rejects.toThrow(
      /^\/etc\/x\.toml cannot be used:\n {2}line 1: b: there is no such key/,
    );
  });
});

describe("where the file comes from", () => {
  test("--config goes before $NIX_BROKER_CONFIG", async () => {
    const one = write("one.toml", '[log]\nlevel = "debug"');
    const two = write("two.toml", '[log]\nlevel = "warn"');
    const environment = { NIX_BROKER_CONFIG: two };
    expect(await loadConfig({ path: one, environment })).toMatchObject({
      file: one,
      log: { level: "debug" },
    });
    expect(await loadConfig({ environment })).toMatchObject({ file: two, log: { level: "warn" } });
  });

  test("a named file that is not there is an error that says who named it", async () => {
    const gone = join(folder, "gone.toml");
    await expect(loadConfig({ path: gone, environment: {} })).rejects.toThrow("there is no such file");
    await expect(loadConfig({ environment: { NIX_BROKER_CONFIG: gone } })).rejects.toThrow(
      "from $NIX_BROKER_CONFIG",
    );
  });
});
