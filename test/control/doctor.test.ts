/** `nix-broker doctor` beside real daemons: on a right installation, and on ones that are wrong on purpose. */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type BesideOptions, lab, type NixVersion } from "../../lab/lab.ts";
import { program } from "../../lab/program.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import type { Finding } from "../../src/cli/doctor-finding.ts";

const config = "/var/lib/nix-broker/service/config.toml";

interface Diagnosis {
  readonly code: number | null;
  readonly findings: readonly Finding[];
  /** `topic: text` of what is not ok. */
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
}

async function doctor(
  { daemon }: RecursiveLab,
  user: BesideOptions["user"] = "root",
  env: Record<string, string> = {},
): Promise<Diagnosis> {
  const argv = [process.execPath, program.cli, "doctor", "--config", config, "--json"];
  const { code, stdout, stderr } = await daemon.run(argv, { user, env });
  expect(stderr).toBe("");
  const { ok, findings } = JSON.parse(stdout) as { ok: boolean; findings: Finding[] };
  const of = (state: Finding["state"]): string[] =>
    findings.filter((finding) => finding.state === state).map(({ topic, text }) => `${topic}: ${text}`);
  for (const { state, advice } of findings) expect(advice === null).toBe(state === "ok");
  expect({ ok, code }).toEqual(of("problem").length === 0 ? { ok: true, code: 0 } : { ok: false, code: 1 });
  return { code, findings, problems: of("problem"), warnings: of("warning") };
}

describe.each(lab.versions)("a right installation [daemon %s]", (version: NixVersion) => {
  let recursive: RecursiveLab;
  beforeAll(async () => {
    recursive = await RecursiveLab.start(version);
  });
  afterAll(() => recursive?.stop());

  test("is found right by root", async () => {
    const { findings, problems, warnings } = await doctor(recursive);
    expect(problems).toEqual([]);
    expect(warnings).toEqual([]);
    const topics = new Set(findings.map(({ topic }) => topic));
    for (const topic of [
      ...["service", "upstream", "linker", "audit", "pre-build-hook", "post-build-hook", "system-features"],
      ...["sandbox", "nix-daemon", "service user", "build users", "allowed-users", "trusted-users"],
      ...["hooks.allow_uids", "max-jobs", "folders", "root.conf"],
      ...["sandbox-paths", "daemon socket"],
    ])
      expect(topics).toContain(topic);
  });

  test("is found right by an ordinary user, who is told what he cannot see", async () => {
    const { problems, warnings } = await doctor(recursive, "alice");
    expect(problems).toEqual([]);
    expect(warnings.length).toBeGreaterThan(1);
    for (const text of warnings) expect(text).toContain("cannot be seen by this user");
  });

  test("prints a line a finding", async () => {
    const { stdout } = await recursive.daemon.run([
      process.execPath,
      program.cli,
      "doctor",
      "--config",
      config,
    ]);
    expect(stdout).toMatch(
      /^ok {7}upstream: Nix.*, protocol 1\.\d\d, at \/nix\/var\/nix\/daemon-socket\/socket/m,
    );
    expect(stdout).toMatch(/\n\n0 problems, 0 warnings\.\n$/);
  });
});

describe("wrong installations", () => {
  const version = lab.versions.at(-1)!;
  let recursive: RecursiveLab;
  let nixConf = "";
  const file = (path: string): string => recursive.daemon.hostPath(path);
  beforeAll(async () => {
    recursive = await RecursiveLab.start(version);
    nixConf = readFileSync(file("/etc/nix/nix.conf"), "utf8");
  });
  afterAll(() => recursive?.stop());

  /** What doctor finds wrong with other lines at the end of nix.conf. */
  async function withSettings(lines: string): Promise<string[]> {
    writeFileSync(file("/etc/nix/nix.conf"), `${nixConf}\n${lines}\n`);
    const { problems, warnings } = await doctor(recursive);
    writeFileSync(file("/etc/nix/nix.conf"), nixConf);
    return [...problems, ...warnings].filter((text) => !text.startsWith("nix-daemon: "));
  }

  test.each([
    ["sandbox = false", ["sandbox: builds are not sandboxed"]],
    ["sandbox = relaxed", ["sandbox: it is relaxed"]],
    ["build-use-sandbox = false", ["sandbox: builds are not sandboxed"]],
    ["system-features = kvm", ["system-features: nix-broker is not advertised"]],
    [
      "pre-build-hook =",
      ["pre-build-hook: it is not set", "system-features: nix-broker is advertised, but nothing"],
    ],
    ["post-build-hook =", ["post-build-hook: it is not set"]],
    ["post-build-hook = /bin/true", ["post-build-hook: /bin/true is not nix-broker's"]],
    ["pre-build-hook = /no/where", ["pre-build-hook: /no/where does not exist"]],
    ["trusted-users = root nix-broker", ["trusted-users: nix-daemon trusts nix-broker (nix-broker)"]],
    ["trusted-users = *", ["trusted-users: nix-daemon trusts nix-broker (*)"]],
    ["allowed-users = alice", ["allowed-users: nix-daemon does not let nix-broker in"]],
    ["auto-allocate-uids = true", ["auto-allocate-uids: Nix makes build users"]],
    [
      "max-jobs = 16",
      ["max-jobs: it is 16, and there are 16 build users: if as many outer builds run at once"],
    ],
    ["max-jobs = 15", []],
    ["max-jobs = 16\npre-build-hook =", ["pre-build-hook: it is not set", "system-features: nix-broker is"]],
    [
      "builders = ssh://farm x86_64-linux - 4 1 kvm,nix-broker ; ssh://other x86_64-linux",
      ["remote machines: ssh://farm lists the feature nix-broker"],
    ],
    ["builders = ssh://other x86_64-linux - 4 1 kvm", []],
    [
      "extra-sandbox-paths = /etc/nix/nix.conf /etc/nix/netrc=/dev/null?",
      ["sandbox-paths: /etc/nix/nix.conf is there, which nix-broker's pre-build hook maps as well"],
    ],
    [
      "extra-sandbox-paths = /nix/var/nix/daemon-socket/socket=/run/s?",
      ["sandbox-paths: /nix/var/nix/daemon-socket/socket is there"],
    ],
    ["sandbox-paths = /lib /opt", ["sandbox-paths: builds have no shell"]],
    ["sandbox-paths =\nextra-sandbox-paths = /usr /lib /lib64", []],
    ["!include /etc/nix/more.conf", ["sandbox: builds are not sandboxed"]],
    ["include /etc/nix/missing.conf", ["nix.conf: it includes /etc/nix/missing.conf, which does not exist"]],
    ["!include /etc/nix/missing.conf", []],
  ])("nix.conf with %s", async (lines, expected) => {
    writeFileSync(file("/etc/nix/more.conf"), "sandbox = false\n");
    const found = await withSettings(lines);
    expect(found).toHaveLength(expected.length);
    expect(found).toEqual(expect.arrayContaining(expected.map((text) => expect.stringContaining(text))));
  });

  test("nix.conf was changed since the daemon started", async () => {
    writeFileSync(file("/etc/nix/nix.conf"), `${nixConf}\n# touched\n`);
    const { warnings } = await doctor(recursive);
    expect(warnings).toEqual([expect.stringContaining("nix.conf was changed after nix-daemon started")]);
    writeFileSync(file("/etc/nix/nix.conf"), nixConf);
    await recursive.daemon.restart();
  });

  test("a machine in /etc/nix/machines lists the feature", async () => {
    writeFileSync(
      file("/etc/nix/machines"),
      "# farm\nssh://far x86_64-linux - 4 1 big - -\nssh://near x86_64-linux - 4 1 - nix-broker\n",
    );
    const { problems } = await doctor(recursive);
    expect(problems).toEqual([expect.stringContaining("ssh://near lists the feature nix-broker")]);
    writeFileSync(file("/etc/nix/machines"), "");
  });

  test("the machines' file names itself", async () => {
    writeFileSync(file("/etc/nix/machines"), "ssh://far x86_64-linux ; @/etc/nix/more\n@/etc/nix/missing\n");
    writeFileSync(file("/etc/nix/more"), "ssh://near x86_64-linux - 4 1 nix-broker\n@ /etc/nix/machines\n");
    expect((await doctor(recursive)).problems).toEqual([
      expect.stringContaining("/etc/nix/machines, which builders in nix.conf names (default: @/etc/nix/"),
      expect.stringContaining("ssh://near lists the feature nix-broker"),
    ]);
    writeFileSync(file("/etc/nix/machines"), "");
  });

  test("root's programs read something else, or somebody else may write it", async () => {
    const path = file("/etc/nix-broker/root.conf");
    writeFileSync(path, "runtime_dir=/run/other\n");
    expect((await doctor(recursive)).problems).toEqual([
      'root.conf: runtime_dir is "/run/other" for root\'s programs, and "/run/nix-broker" for the service',
    ]);
    await recursive.daemon.run(["chmod", "666", "/etc/nix-broker/root.conf"]);
    expect((await doctor(recursive)).problems[0]).toContain("can be changed by users other than root");
    await recursive.daemon.run(["chmod", "644", "/etc/nix-broker/root.conf"]);
    writeFileSync(path, "");
  });

  test.each([
    ["chmod 777 /run/nix-broker/sandboxes", "chmod 750 /run/nix-broker/sandboxes", "has mode 777"],
    ["chown alice /run/nix-broker", "chown root /run/nix-broker", "/run/nix-broker, belongs to user"],
    [
      "chmod 755 /var/lib/nix-broker/service/state/audit",
      "chmod 700 /var/lib/nix-broker/service/state/audit",
      "has mode 755",
    ],
  ])("folders after %s", async (wrong, right, text) => {
    await recursive.daemon.run(wrong.split(" "));
    expect((await doctor(recursive)).problems).toEqual([expect.stringContaining(text)]);
    await recursive.daemon.run(right.split(" "));
  });

  test("a user who builds may not be the service's", async () => {
    const group = file("/etc/group");
    const before = readFileSync(group, "utf8");
    writeFileSync(group, before.replace(/^(nixbld:.*)$/m, "$1,nix-broker"));
    expect((await doctor(recursive)).problems).toEqual([
      expect.stringContaining("the service's user is a member of nixbld"),
    ]);
    writeFileSync(group, before);
  });

  test("the daemon's socket is in a folder for a group, as Debian's is", async () => {
    const folder = "/nix/var/nix/daemon-socket";
    const group = file("/etc/group");
    const before = readFileSync(group, "utf8");
    writeFileSync(group, `${before}nix-users:x:987:\n`);
    await recursive.daemon.run(["sh", "-c", `chgrp nix-users ${folder} && chmod 770 ${folder}`]);
    const found = async () => {
      const { problems, findings } = await doctor(recursive);
      return { problems, text: findings.find(({ topic }) => topic === "daemon socket")?.text };
    };
    expect((await found()).problems).toEqual([
      expect.stringMatching(/^upstream: .*EACCES/),
      `daemon socket: ${folder} is for its owner and the group nix-users alone (mode 770), and nix-broker is not a member`,
    ]);
    // It joins, and the service still has the groups that it was started with.
    writeFileSync(group, `${before}nix-users:x:987:nix-broker\n`);
    expect((await found()).problems).toEqual([
      expect.stringMatching(/^upstream: .*EACCES/),
      "daemon socket: nix-broker has joined the group nix-users since the service started",
    ]);
    await recursive.daemon.run(["chmod", "755", folder]);
    expect(await found()).toEqual({ problems: [], text: "every user may connect" });
    writeFileSync(group, before);
  });

  test("root's own commands that bypass the daemon", async () => {
    const { warnings } = await doctor(recursive, "root", { NIX_REMOTE: "" });
    expect(warnings).toEqual([expect.stringContaining("NIX_REMOTE: root's own Nix commands")]);
  });

  test("a configuration with a fault is told, and the rest is checked all the same", async () => {
    const path = file(config);
    const before = readFileSync(path, "utf8");
    writeFileSync(path, `${before}\n[upstraem]\n`);
    const { problems } = await doctor(recursive);
    expect(problems[0]).toMatch(/^configuration: .*upstraem.*upstream/);
    writeFileSync(path, before);
  });

  test("linker, service, daemon: each that is down is told, with what follows", async () => {
    await recursive.stopLinker();
    expect((await doctor(recursive)).problems).toEqual([
      expect.stringMatching(/^linker: .*builds that opt in are refused/),
    ]);
    await recursive.broker?.stop();
    expect((await doctor(recursive)).problems).toEqual([
      expect.stringMatching(/^service: The service cannot be reached/),
      expect.stringMatching(/^linker: it does not run/),
    ]);
    await recursive.daemon.kill(true);
    expect((await doctor(recursive)).problems).toContainEqual(
      expect.stringMatching(/^upstream: .*daemon-socket/),
    );
  });
});
