/** What `nix-broker jail` makes of its options, without starting anything. */
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { StoredRecord } from "../../src/audit/record.ts";
import { type JailPlan, jailArguments, jailLines } from "../../src/jail/bubblewrap.ts";
import { callFilter } from "../../src/jail/call-filter.ts";
import { clientFiles } from "../../src/jail/client-files.ts";
import { type JailUser, jailEnvironment } from "../../src/jail/environment.ts";
import { findBwrap } from "../../src/jail/find-bwrap.ts";
import {
  type Forbidden,
  inOrder,
  type JailFolder,
  jailFolder,
  outsidePath,
  refuseLinks,
} from "../../src/jail/folders.ts";
import { lookAt } from "../../src/jail/identity.ts";
import { JailError } from "../../src/jail/jail-error.ts";
import { ownFiles } from "../../src/jail/own-files.ts";
import { AuditSummary } from "../../src/jail/summary.ts";
import { troubleWith } from "../../src/jail/trouble.ts";

const user: JailUser = { name: "alice", uid: 1000, gid: 100, home: "/home/alice" };
const store = "/nix/store/00000000000000000000000000000000";

describe("folders", () => {
  const home = realpathSync(mkdtempSync(join(tmpdir(), "nix-broker-folders-")));
  afterAll(() => rmSync(home, { recursive: true }));
  for (const name of ["project", "state/audit", "run"]) mkdirSync(join(home, name), { recursive: true });
  symlinkSync("/proc", join(home, "to-proc"));
  symlinkSync(join(home, "state"), join(home, "project/to-state"));
  symlinkSync(join(home, "project"), join(home, "to-project"));
  const forbidden: Forbidden[] = [
    { path: home, what: "your home", inParts: true },
    { path: join(home, "state"), what: "the folder of the audits" },
  ];
  const storeDir = join(home, "store");
  const given = (path: string, option = "--bind") =>
    jailFolder({ path, option, writable: true }, forbidden, storeDir);

  test("are mounted at their own paths, from where links lead", () => {
    expect(given(join(home, "project"))).toEqual({
      given: join(home, "project"),
      source: join(home, "project"),
      target: join(home, "project"),
      writable: true,
      identity: lookAt(join(home, "project")).identity,
    });
    expect(given(join(home, "to-project")).source).toBe(join(home, "project"));
  });

  test.each([
    ["the home", "", "is or contains your home"],
    ["what is above it", "..", "is or contains your home"],
    ["the audits", "state", "is or contains the folder of the audits"],
    ["what is in them", "state/audit", "is in the folder of the audits"],
    ["a link to them", "project/to-state", "is or contains the folder of the audits"],
    ["a link to what the jail has of its own", "to-proc", "is in /proc"],
    ["what is not there", "missing", "cannot be mounted"],
  ])("%s cannot be given", (_, path, message) => {
    expect(() => given(join(home, path))).toThrow(JailError);
    expect(() => given(join(home, path))).toThrow(message);
  });

  test("settings that are links into the store can be given, read-only", () => {
    symlinkSync("/proc/self", join(home, "project/settings"));
    const settings = (writable: boolean) =>
      jailFolder({ path: join(home, "project/settings"), option: "--bind", writable }, forbidden, "/proc");
    expect(settings(false)).toMatchObject({ target: join(home, "project/settings"), writable: false });
    expect(() => settings(true)).toThrow("is in /proc");
  });

  test.each(["/", "/nix", "/nix/var/nix/daemon-socket", "/dev/shm"])("%s cannot be given", (path) => {
    expect(() => given(path)).toThrow(JailError);
  });

  test("what is forbidden by a name with links in it cannot be given by its real one", () => {
    symlinkSync(home, `${home}-link`);
    const byLink: Forbidden[] = [
      { path: `${home}-link`, what: "your home", inParts: true },
      { path: join(`${home}-link`, "project/made-later"), what: "the folder of the audits" },
    ];
    try {
      for (const path of [home, join(home, "project")])
        expect(() => jailFolder({ path, option: "", writable: true }, byLink, storeDir)).toThrow(
          "is or contains",
        );
      expect(
        jailFolder({ path: join(home, "run"), option: "", writable: true }, byLink, storeDir).source,
      ).toBe(join(home, "run"));
    } finally {
      rmSync(`${home}-link`);
    }
  });

  test("bwrap is not taken from where a jail could have put it", () => {
    const folders = ["project/bin", "programs", "links"].map((name) => join(home, name));
    const [theirs = "", ours = "", links = ""] = folders;
    for (const folder of folders) mkdirSync(folder);
    for (const folder of [theirs, ours]) writeFileSync(join(folder, "bwrap"), "", { mode: 0o755 });
    symlinkSync(join(theirs, "bwrap"), join(links, "bwrap"));
    const writable = [join(home, "project")];
    const before = relative(process.cwd(), theirs);
    expect(findBwrap(["", before, theirs, links, ours].join(":"), writable)).toBe(join(ours, "bwrap"));
    expect(() => findBwrap(theirs, writable)).toThrow("bwrap is not in PATH");
    // What a jail has built in the store is in no folder that it can write to.
    symlinkSync(ours, join(home, "project/result"));
    symlinkSync(join(home, "project/result"), join(home, "to-result"));
    for (const path of ["project/result", "to-result", "to-project/result"])
      expect(() => findBwrap(join(home, path), writable)).toThrow("bwrap is not in PATH");
    symlinkSync(ours, join(home, "to-programs"));
    expect(findBwrap(join(home, "to-programs"), writable)).toBe(join(home, "to-programs/bwrap"));
  });

  test("the current folder is refused with advice", () => {
    expect(() => given(home, "")).toThrow("change to the folder of one project");
  });

  const plain = (path: string, writable = true): JailFolder => ({
    given: path,
    source: path,
    target: path,
    writable,
    identity: "",
  });

  test("one that is in another one is mounted after it, and so is seen", () => {
    const [inner, outer, other] = [plain("/srv/main/.git", false), plain("/srv/main"), plain("/srv/x")];
    expect(inOrder([inner, outer, other])).toEqual([other, outer, inner]);
    const readOnly = plain("/srv/main", false);
    expect(inOrder([outer, inner, readOnly])).toEqual([readOnly, inner]);
  });

  test("links in what the jail can write to are not followed", () => {
    const [work = "", kept = ""] = ["work", "kept"].map((name) => join(home, name));
    for (const name of ["work/inner", "kept/real"]) mkdirSync(join(home, name), { recursive: true });
    symlinkSync("../run", join(work, "out"));
    symlinkSync("/oldroot", join(kept, "link"));
    symlinkSync(work, join(home, "to-work"));
    const asHome = (path: string): JailFolder => ({ ...given(path, "--home"), target: "/home/alice" });
    for (const path of [join(work, "out"), join(home, "to-work/out")])
      for (const folder of [given(path), asHome(path)])
        expect(() => refuseLinks([given(work), folder])).toThrow(
          `${path} leads through ${work}, which the jail can write to, and out of it by a link, to ${join(home, "run")}`,
        );
    // By another name of the folder, with the link before the end.
    mkdirSync(join(home, "run/below"));
    for (const path of [join(home, "to-work/out/below"), join(work, "out/below")])
      expect(() => refuseLinks([given(work), given(path)])).toThrow(`${path} leads through ${work}, which`);
    // A link that was there for a moment.
    expect(() =>
      refuseLinks([given(work), { ...given(join(home, "to-work/inner")), source: join(home, "run") }]),
    ).toThrow(`${join(home, "to-work/inner")} leads through ${work}, which`);
    expect(() => refuseLinks([asHome(kept), plain("/home/alice/link/below")])).toThrow(
      `${join(kept, "link")}, which the jail can write to, is a link where /home/alice/link/below is to be`,
    );
    refuseLinks([
      given(work),
      given(join(home, "to-work/inner")),
      asHome(kept),
      plain("/home/alice/real/x"),
      plain("/home/alice/new/x"),
    ]);
  });

  test("a path of the jail is outside where its last mount has it, if that is writable", () => {
    const folders = [
      { source: "/srv/kept", target: "/home/alice", writable: true },
      { source: "/home/alice/project", target: "/home/alice/project", writable: true },
      { source: "/home/alice/project/vendor", target: "/home/alice/project/vendor", writable: false },
    ];
    expect(outsidePath(folders, "/home/alice/.profile")).toBe("/srv/kept/.profile");
    expect(outsidePath(folders, "/home/alice/project/result")).toBe("/home/alice/project/result");
    expect(outsidePath(folders, "/home/alice/project/vendor/result")).toBeUndefined();
    expect(outsidePath(folders, "/home/alice2/result")).toBeUndefined();
    expect(outsidePath(folders, "/tmp/result")).toBeUndefined();
  });
});

describe("environment", () => {
  const links: Record<string, string> = {
    "/home/alice/.nix-profile/bin": `${store}-user-environment/bin`,
    "/nix/var/nix/profiles/per-user/root/channels": `${store}-channels`,
    "/nix/var/nix/profiles/per-user/root/channels/nixpkgs": `${store}-nixpkgs`,
    "/usr/bin": "/usr/bin",
  };
  const made = (words: readonly string[], environment: Record<string, string>) =>
    jailEnvironment(words, { environment, user, storeDir: "/nix/store", realPath: (path) => links[path] });

  test("holds no secrets unless they are asked for", () => {
    const given = {
      API_KEY: "secret",
      LANG: "C.UTF-8",
      LC_TIME: "C",
      SSH_AUTH_SOCK: "/run/ssh",
      TERM: "xterm",
    };
    const variables = made([], given);
    expect(variables).toMatchObject({
      HOME: "/home/alice",
      LANG: "C.UTF-8",
      LC_TIME: "C",
      NIX_REMOTE: "daemon",
      TERM: "xterm",
    });
    expect(Object.values(variables)).not.toContain("secret");
    expect(variables).not.toHaveProperty("SSH_AUTH_SOCK");
    expect(made(["API_KEY", "MODE=a=b", "EMPTY="], given)).toMatchObject({
      API_KEY: "secret",
      MODE: "a=b",
      EMPTY: "",
    });
  });

  test.each([
    ["a=https://me:token@example.org:8080/a.tar.gz:b=/srv/b", "b=/srv/b"],
    ["/srv/a:https://token@example.org/a.tar.gz:b=/srv/b", "/srv/a:b=/srv/b"],
    ["/srv/a:b=git+https://token@example.org", "/srv/a"],
    ["a=https://example.org/@a:b=/srv/@b:c=channel:x", "a=https://example.org/@a:b=/srv/@b:c=channel:x"],
  ])("of NIX_PATH=%s it has %s, without passwords", (path, expected) => {
    expect(made([], { NIX_PATH: path }).NIX_PATH).toBe(expected);
    expect(made(["NIX_PATH"], { NIX_PATH: path }).NIX_PATH).toBe(path);
  });

  test.each(["MISSING", "1X=y", "a b=c", "=x"])("--env %s is an error", (word) => {
    expect(() => made([word], {})).toThrow(JailError);
  });

  test("profiles and channels, which the jail has not, are replaced by where they lead", () => {
    const variables = made([], { PATH: "/home/alice/.nix-profile/bin:/usr/bin:relative" });
    expect(variables.PATH).toBe(
      `/home/alice/.nix-profile/bin:${store}-user-environment/bin:/usr/bin:relative`,
    );
    expect(variables.NIX_PATH).toBe(`nixpkgs=${store}-nixpkgs:${store}-channels`);
    const terminal = { TERMINFO_DIRS: "/home/alice/.nix-profile/bin:/etc/terminfo" };
    expect(made([], terminal).TERMINFO_DIRS).toBe(`${store}-user-environment/bin:/etc/terminfo`);
    const own = {
      NIX_PATH: "nixpkgs=/nix/var/nix/profiles/per-user/root/channels/nixpkgs:x=https://example.org/x.tar.gz",
    };
    expect(made([], own).NIX_PATH).toBe(`nixpkgs=${store}-nixpkgs:x=https://example.org/x.tar.gz`);
  });
});

describe("the jail's own files", () => {
  const nixConfs = [
    "experimental-features = nix-command flakes # both\naccess-tokens = forge=secret\nsubstituters = https://x\n",
    "extra-experimental-features = ca-derivations\nnetrc-file = /secret\n",
  ];
  const nixConf = (withNetwork: boolean, confs = nixConfs) =>
    ownFiles({ user, nixConfs: confs, registries: [], withNetwork }).get("/etc/nix/nix.conf");

  test("nix.conf has what clients need of the machine's, and nothing else", () => {
    const lines =
      "store = daemon\nexperimental-features = nix-command flakes\nextra-experimental-features = ca-derivations\n";
    expect(nixConf(true)).toBe(lines);
    expect(nixConf(false)).toBe(`${lines}flake-registry =\nsubstituters =\n`);
    const secret = ["nix-path = a=https://me:token@example.org/a.tar.gz b=/srv/b\n"];
    expect(nixConf(true, secret)).toBe("store = daemon\nnix-path = b=/srv/b\n");
    // Nix 2.3 would warn of a setting that it does not know.
    expect(nixConf(false, [""])).toBe("store = daemon\nsubstituters =\n");
  });

  test("flakes are found by the names that the user's registry and the machine's give them", () => {
    const entry = (id: string, url: string) => ({ from: { type: "indirect", id }, to: { type: "git", url } });
    const [own, theirs] = [entry("nixpkgs", "file:///own"), entry("nixpkgs", "file:///theirs")];
    const secret = entry("secret", "https://me:token@example.org/x");
    const registries = [
      JSON.stringify({ flakes: [own, secret], version: 2 }),
      JSON.stringify({ flakes: [theirs] }),
      "not JSON",
      "",
      "null",
    ];
    const made = (texts: string[]) =>
      ownFiles({ user, nixConfs: [], registries: texts, withNetwork: false }).get("/etc/nix/registry.json");
    expect(JSON.parse(made(registries) ?? "")).toEqual({ flakes: [own, theirs], version: 2 });
    expect(made(["", ""])).toBeUndefined();
  });

  test("settings are those of the machine, of what it includes, of the user, and of the environment", () => {
    const folder = mkdtempSync(join(tmpdir(), "nix-broker-settings-"));
    try {
      const write = (name: string, text: string) => {
        mkdirSync(join(folder, name, ".."), { recursive: true });
        writeFileSync(join(folder, name), text);
      };
      write("etc/nix.conf", "a = 1\n!include custom.conf # ours\ninclude nix.conf\ninclude missing.conf\n");
      write("etc/custom.conf", "b = 2");
      write("etc/registry.json", "the machine's");
      write("home/.config/nix/nix.conf", "c = 3");
      write("home/.config/nix/registry.json", "the user's");
      write("one.conf", "d = 4");
      write("two.conf", "e = 5");
      const files = (environment: Record<string, string>) =>
        clientFiles({ ...user, home: join(folder, "home") }, environment, join(folder, "etc"));
      const settings = (environment: Record<string, string>) =>
        files(environment)
          .nixConfs.join("\n")
          .match(/^[a-z] = [0-9]$/gm);
      expect([...new Set(settings({ NIX_CONFIG: "f = 6" }))]).toEqual(["a = 1", "b = 2", "c = 3", "f = 6"]);
      const named = { NIX_USER_CONF_FILES: `${folder}/two.conf:${folder}/one.conf` };
      expect([...new Set(settings(named))]).toEqual(["a = 1", "b = 2", "d = 4", "e = 5"]);
      expect(files({}).registries).toEqual(["the user's", "the machine's"]);
      expect(files({ XDG_CONFIG_HOME: folder }).registries).toEqual(["", "the machine's"]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test("users are the jail's own and root", () => {
    const passwd = ownFiles({ user, nixConfs: [], registries: [], withNetwork: false }).get("/etc/passwd");
    expect(passwd).toContain("alice:x:1000:100::/home/alice:/bin/sh\n");
    expect(passwd?.trim().split("\n")).toHaveLength(3);
  });
});

describe("the command line", () => {
  const plan: JailPlan = {
    bwrap: "/usr/bin/bwrap",
    machine: [{ kind: "ro-bind", source: "/usr", target: "/usr" }],
    home: "/home/alice",
    keptHome: undefined,
    folders: [{ given: "/nix-like", source: "/nix-like", target: "/nix-like", writable: true, identity: "" }],
    storeDir: "/nix/store",
    logs: undefined,
    socket: "/run/s",
    brokerStays: false,
    files: new Map([["/etc/passwd", "it's\n"]]),
    filter: callFilter("x64"),
    withNetwork: false,
    leavesInterrupts: false,
    user: "alice",
    ownSession: false,
    cwd: "/work",
    environment: { PATH: "/bin" },
    command: ["echo", "a b"],
  };

  test("mounts what is ours after what is the user's, and closes the root folder last", () => {
    const { args, inputs } = jailArguments(plan);
    const at = (word: string): number => args.indexOf(word);
    expect(at("/nix-like")).toBeGreaterThan(at("--tmpfs"));
    expect(at("/run/s")).toBeGreaterThan(at("/nix-like"));
    expect(at("--remount-ro")).toBeGreaterThan(at("--ro-bind-data"));
    expect(inputs.map(({ fd }) => fd)).toEqual([4, 5, 6]);
    // Where nobody else can read them.
    expect(args.join(" ")).not.toContain("PATH");
    expect(inputs.at(-1)?.contents).toEqual(["--setenv", "PATH", "/bin"]);
  });

  test("has the network only if it is asked for, and a session of its own where it must", () => {
    expect(jailArguments(plan).args).not.toContain("--share-net");
    expect(jailArguments(plan).args).not.toContain("--new-session");
    const other = jailArguments({ ...plan, withNetwork: true, ownSession: true }).args;
    expect(other).toEqual(
      expect.arrayContaining(["--share-net", "--new-session", "--die-with-parent", "--unshare-all"]),
    );
  });

  test("has the folder of a broker that stays, which may make its socket anew", () => {
    const { args } = jailArguments({ ...plan, socket: "/run/jail/socket", brokerStays: true });
    expect(args.join(" ")).toContain("--ro-bind /run/jail /nix/var/nix/daemon-socket --ro-bind-data");
  });

  test("is printed as a shell takes it", () => {
    const lines = jailLines({ ...plan, environment: { PATH: "/bin", KEY: "secret" } }, ["KEY"]);
    expect(lines).toMatch(/^env -i \/usr\/bin\/bwrap \\\n {2}--unshare-all /);
    expect(lines).toContain("-- echo 'a b' ");
    expect(lines).toContain("4< <(printf %s 'it'\\''s\n')");
    expect(lines).toContain(`5< <(base64 -d <<< ${callFilter("x64").toString("base64")})`);
    expect(lines).toContain(`6< <(printf '%s\\0' --setenv PATH /bin --setenv KEY "$KEY")`);
  });
});

test.each([
  [{ "kernel/unprivileged_userns_clone": "0" }, "kernel.unprivileged_userns_clone=1"],
  [{ "user/max_user_namespaces": "0" }, "user.max_user_namespaces=10000"],
  [{ "kernel/apparmor_restrict_unprivileged_userns": "1" }, "AppArmor"],
  [{ "kernel/unprivileged_userns_clone": "1", "user/max_user_namespaces": "96365" }, undefined],
])("a machine with %j is told of %s", (settings: Record<string, string>, words) => {
  const read = (name: string) => settings[name];
  const advice = troubleWith(read, false);
  if (words === undefined) expect(advice).toBeUndefined();
  else expect(advice).toContain(words);
  expect(troubleWith(read, true)).toContain(words ?? "this is a container");
});

describe("the summary", () => {
  const record = (fields: Partial<StoredRecord>): StoredRecord =>
    ({
      seq: 1,
      hash: "",
      time: 0,
      kind: "request",
      op: "AddToStore",
      verdict: "forward",
      ...fields,
    }) as StoredRecord;

  test("counts requests and builds, and tells equal denials once", () => {
    const summary = new AuditSummary();
    expect(summary.isEmpty).toBe(true);
    const denied = record({
      op: "CollectGarbage",
      verdict: "deny",
      reason: "no\u001b[31m authority",
      count: 2,
    });
    summary.add([record({}), record({ verdict: "answer", count: 3 }), denied, denied]);
    summary.add([
      record({ kind: "build", op: "Build", verdict: undefined as never }),
      record({ kind: "build", op: "Build", upstreamError: "failed" }),
    ]);
    expect(summary.isEmpty).toBe(false);
    const [first, ...others] = summary.lines();
    expect(first).toBe("8 requests: 3 answered, 1 forwarded, 4 denied; builds: 1 done, 1 failed");
    expect(others).toHaveLength(1);
    expect(others[0]).toMatch(/^denied 4 times: CollectGarbage: no.*authority$/);
    expect(others[0]).not.toContain("\u001b");
  });

  test("is bounded, whatever is denied", () => {
    const summary = new AuditSummary();
    for (let i = 0; i < 50; i++)
      summary.add([record({ verdict: "deny", subjects: [`${i}${"x".repeat(4000)}`], reason: "no" })]);
    const lines = summary.lines();
    expect(lines).toHaveLength(22);
    expect(lines.at(-1)).toBe("denied: 30 more");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThan(400);
  });
});
