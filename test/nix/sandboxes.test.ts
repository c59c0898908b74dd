import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab, type NixVersion, nixString, sandboxScript } from "../../lab/lab.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { codeBlock, patient, place, projectRoot, simple } from "./fixture.ts";

const version: NixVersion = lab.versions.at(-1) ?? "2.34";
const system = `${{ x64: "x86_64", arm64: "aarch64" }[process.arch as string]}-linux`;

describe("an agent in bubblewrap, by the command of the page", () => {
  let daemon: Daemon;
  let broker: TestBroker;
  let secret: string;
  beforeAll(async () => {
    daemon = await lab.start(version);
    broker = await startBroker(daemon, { profile: "agent", view: "store", allow: "alice" });
    const bwrap = await lab.toolInside("bwrap", "bubblewrap");
    await daemon.run([
      "sh",
      "-c",
      `mkdir -p /run/nix-broker/shared && ln -s ${broker.socketFolder} /run/nix-broker/shared/agent`,
    ]);
    const script = codeBlock("sandboxes.md", "An agent in bubblewrap", "sh", "exec bwrap").replace(
      "exec bwrap",
      `exec ${bwrap}`,
    );
    await place(daemon, "/var/jail", `#!/bin/sh\n${script}`);
    secret = (await daemon.build(simple("in-the-store"))).out;
  });
  afterAll(async () => {
    await broker?.stop();
    await daemon?.stop();
  });

  const jail = (script: string) => daemon.run(["/var/jail", "bash", "-c", script], { user: "alice" });

  test("looks at the store, evaluates, builds and reads results", async () => {
    const looked = await jail(`nix-store -q --hash ${secret} | cat; cat ${secret}`);
    expect(looked).toMatchObject({ code: 0 });
    expect(looked.stdout).toMatch(/^sha256:[0-9a-z]+\nmade\n$/);
    const built = await jail(
      `cat $(nix-build --no-out-link -E ${JSON.stringify(simple("by-agent")).replaceAll("$out", "\\$out")})`,
    );
    expect(built).toMatchObject({ code: 0, stdout: "made\n" });
  });

  test("cannot build what has the network, collect garbage, or see roots", async () => {
    const fixed = `derivation { name = "fetched"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ ]; outputHash = "${"0".repeat(64)}"; outputHashAlgo = "sha256"; outputHashMode = "flat"; }`;
    const fetched = await jail(`nix-build --no-out-link -E '${fixed}'`);
    expect(fetched.code).not.toBe(0);
    expect(fetched.stderr).toMatch(/fixed-output/);
    const collected = await jail("nix-store --gc");
    expect(collected.code).not.toBe(0);
    expect(collected.stderr).toContain("CollectGarbage is not allowed here");
    await daemon.run(["nix-store", "--realise", secret, "--add-root", "/tmp/private-root", "--indirect"]);
    const roots = await jail(`nix-store -q --roots ${secret} | cat`);
    expect(roots.stdout).not.toContain("private-root");
    const denied = await broker.audit("--verdict", "deny");
    expect(denied.map(({ op }) => op)).toContain("CollectGarbage");
  });

  test("cannot change settings, reach the real daemon, the network or homes", async () => {
    const unsandboxed = await jail(
      `nix-build --no-out-link --option sandbox false --option build-users-group '' -E ${JSON.stringify(simple("sandboxed", "if [ -e /home/alice ]; then echo open; else echo closed; fi > $out")).replaceAll("$out", "\\$out")} | xargs cat`,
    );
    expect(unsandboxed.stdout).toBe("closed\n");
    const seen = await jail("ls /nix/var/nix; ls /home; ls /sys/class/net; ls /nix/var/nix/daemon-socket");
    expect(seen.stdout).toMatch(/^daemon-socket\nagent\n/);
    expect((await jail("cat /proc/net/dev | tail -n +3 | cut -d: -f1")).stdout.trim()).toBe("lo");
  });

  test("other users may not use the socket", async () => {
    const other = await daemon.run(["nix-store", "--add", "/etc/passwd"], {
      user: "nobody",
      env: { NIX_REMOTE: `unix://${broker.socket}` },
    });
    expect(other.code).not.toBe(0);
    expect(other.stderr).toMatch(/may not use this socket/);
  });
});

describe("an upstream on another machine", () => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await lab.start(version);
  });
  afterAll(() => daemon?.stop());

  test("upstream may be a command", async () => {
    const broker = await startBroker(daemon, {
      config: '[upstream]\ncommand = ["nix-daemon", "--stdio"]\n',
    });
    try {
      const built = await daemon.run(["nix-build", "--no-out-link", "-E", simple("by-command")], {
        user: "alice",
        env: { NIX_REMOTE: `unix://${broker.socket}` },
      });
      expect(built).toMatchObject({ code: 0 });
      expect(built.stdout).toMatch(/-by-command\n$/);
    } finally {
      await broker.stop();
    }
  });
});

describe("a build farm of two machines", () => {
  let builder: RecursiveLab;
  let head: RecursiveLab;
  const outer = (inner: string): string =>
    sandboxScript(
      `export HOME=$PWD/home PAGER=cat NIX_REMOTE=daemon; mkdir -p $HOME; result=$(nix-build --no-out-link -E "$inner"); cat $result; echo $result > $out`,
      { name: "outer", features: ["nix-broker"], attributes: { inner: nixString(inner) } },
    );

  beforeAll(async () => {
    builder = await RecursiveLab.start(version, { ...patient, config: "extra-platforms = riscv64-linux" });
    const folder = dirname(builder.daemon.socket);
    head = await RecursiveLab.start(version, {
      ...patient,
      binds: [{ source: folder, target: "/builder" }],
      env: { PATH: "/var/bin:/usr/bin:/bin" },
      config: "builders = ssh-ng://builder riscv64-linux - 4\nbuilders-use-substitutes = false",
      serviceConfig: '[profiles.farm]\nextends = "build"\nsystems = "any"\n[hooks]\nprofile = "farm"\n',
    });
    await place(
      head.daemon,
      "/var/bin/ssh",
      // Nix asks first whether there is a master connection; if so it does not wait for word that ssh has started.
      `#!/bin/sh
case " $* " in *" -O check "*) exit 0 ;; esac
exec ${process.execPath} ${join(projectRoot, "test/nix/stdio-pipe.mjs")} /builder/socket
`,
    );
  });
  afterAll(async () => {
    await head?.stop();
    await builder?.stop();
  });

  const references = async (daemon: Daemon, path: string): Promise<string> =>
    (await daemon.run(["nix-store", "-q", "--references", path])).stdout;

  test("inner builds go to Nix's own remote builders", async () => {
    const inner = `derivation { name = "remote"; system = "riscv64-linux"; builder = "/bin/sh"; args = [ "-c" "echo far away > $out" ]; }`;
    const { out } = await head.daemon.build(outer(inner));
    const result = (await head.daemon.run(["cat", out])).stdout.trim();
    expect((await head.daemon.run(["cat", result])).stdout).toBe("far away\n");
    expect(await references(head.daemon, out)).toBe(`${result}\n`);
    expect((await builder.daemon.run(["cat", result])).stdout).toBe("far away\n");
  });

  test("outer builds go to a machine that is used as a store", async () => {
    const built = await head.daemon.run(["nix-build", "--no-out-link", "-E", outer(simple("at-builder"))], {
      env: { PATH: "/var/bin:/usr/bin:/bin", NIX_REMOTE: "ssh-ng://builder" },
    });
    expect(built).toMatchObject({ code: 0 });
    expect(await references(builder.daemon, built.stdout.trim())).toMatch(/-at-builder\n$/);
  });

  test("outer builds on a remote builder fail: there is no daemon in their sandbox", async () => {
    await head.daemon.restart(
      `builders = ssh-ng://builder ${system} - 4 1 nix-broker\nsystem-features = benchmark\n`,
    );
    const { code, log } = await head.daemon.tryBuild(outer(simple("never")));
    expect(code).not.toBe(0);
    expect(log).toContain("on 'ssh-ng://builder' failed");
    expect(log).toMatch(/cannot connect to (socket|daemon) at '\/nix\/var\/nix\/daemon-socket\/socket'/);
  });
});
