/** A forced command of a real sshd, by the lines of docs/sandboxes.md, with real clients. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { codeBlock, place, projectRoot, simple } from "./fixture.ts";
import { describeWithMachine, Machine } from "./machine.ts";

const section = "Over ssh: a forced command";

/** The page's line for authorized_keys, with a key. */
function authorize(key: string): string {
  const page = readFileSync(join(projectRoot, "docs/sandboxes.md"), "utf8");
  const line = /^ {4}(command=".*",restrict) ssh-ed25519 AAAA… alice$/m.exec(page)?.[1];
  if (line === undefined) throw new Error("docs/sandboxes.md has no line of authorized_keys");
  return `${line} ${key}`;
}

/** What a client of the worker protocol says first, as one of protocol 1.21. */
const hello = Buffer.from("cxin\0\0\0\0\x15\x01\0\0\0\0\0\0");

const addUsers = `
echo broker:x:41902:41902::/home/broker:/bin/sh >> /etc/passwd
echo broker:x:41902: >> /etc/group
echo sshd:x:41903:41903::/run/sshd:/bin/false >> /etc/passwd
echo 127.0.0.1 machine >> /etc/hosts
mkdir -p /run/sshd /home/alice/.ssh`;

/** Sets up the user broker as the page says, with alice's key, and starts sshd. */
async function startSshd(machine: Machine): Promise<void> {
  await machine.must("sh", "-euc", addUsers);
  const key = async (file: string): Promise<string> => {
    await machine.must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file);
    return readFileSync(machine.path(`${file}.pub`), "utf8");
  };
  const hostKey = await key("/etc/ssh/ssh_host_ed25519_key");
  const files = {
    "/etc/ssh/ssh_known_hosts": `machine ${hostKey}`,
    "/etc/ssh/sshd_config": "ListenAddress 127.0.0.1\nPasswordAuthentication no\n",
    "/home/broker/config.toml": codeBlock("sandboxes.md", section, "toml", "[audit]"),
    "/home/broker/.ssh/authorized_keys": authorize(await key("/home/alice/.ssh/id_ed25519")),
  };
  for (const [path, text] of Object.entries(files)) await place(machine, path, text, "644");
  await machine.must("chown", "-R", "alice:alice", "/home/alice/.ssh");
  await machine.must("chown", "-R", "broker:broker", "/home/broker");
  await machine.must("/usr/sbin/sshd", "-E", "/var/log/sshd");
  await until(() => existsSync(machine.path("/run/sshd.pid")));
}

describeWithMachine("a forced command of sshd", lab.versions, (version) => {
  let daemon: Daemon;
  let machine: Machine;
  let secret: string;
  beforeAll(async () => {
    daemon = await lab.start(version);
    secret = (await daemon.build(simple("in-the-store"))).out;
    machine = await Machine.start(daemon);
    await startSshd(machine);
  });
  afterAll(async () => {
    machine?.stop();
    await daemon?.stop();
  });

  const ssh = (input: Uint8Array, ...args: string[]) =>
    machine.run(["ssh", ...args], { user: "alice", input });
  const remote = (store: string, ...argv: string[]) =>
    machine.run(argv, { user: "alice", env: { NIX_REMOTE: store } });
  const broker = "ssh-ng://broker@machine";

  test("builds", async () => {
    const built = await remote(broker, "nix-build", "--no-out-link", "-E", simple("by-ssh"));
    expect(built).toMatchObject({ code: 0, stdout: expect.stringMatching(/-by-ssh\n$/) });
    expect((await daemon.run(["cat", built.stdout.trim()])).stdout).toBe("made\n");
  });

  test("takes copies", async () => {
    const own = "local?root=/tmp/alice";
    await machine.must("sh", "-c", "echo mine > /tmp/copied");
    const added = await remote(own, "nix-store", "--add", "/tmp/copied");
    expect(added.code).toBe(0);
    const path = added.stdout.trim();
    const feature = version === "2.3" ? [] : ["--extra-experimental-features", "nix-command"];
    const copied = await remote(own, "nix", ...feature, "copy", "--to", broker, path);
    expect(copied).toMatchObject({ code: 0 });
    expect((await daemon.run(["cat", path])).stdout).toBe("mine\n");
  });

  test("tells nothing of other paths, and has no authority", async () => {
    const asked = await remote(broker, "nix-store", "-q", "--hash", secret);
    expect(asked.code).not.toBe(0);
    expect(asked.stderr).toMatch(/is not valid/);
    const collected = await remote(broker, "nix-store", "--gc");
    expect(collected.code).not.toBe(0);
    expect(collected.stderr).toContain("CollectGarbage is not allowed here");
    const audit = ["nix-broker", "audit", "--config", "/home/broker/config.toml", "--verdict", "deny"];
    expect((await machine.run(audit, { user: "broker" })).stdout).toContain("CollectGarbage");
  });

  test("is what runs, whatever is asked for: no shell, no other program", async () => {
    for (const args of [["broker@machine"], ["broker@machine", "touch /tmp/taken; echo taken"]]) {
      const asked = await ssh(hello, ...args);
      expect(asked.stdout.slice(0, 8)).toBe("oixd\0\0\0\0");
    }
    expect(existsSync(machine.path("/tmp/taken"))).toBe(false);
  });

  test("is all there is by restrict, without which sshd leads to the daemon's own socket", async () => {
    const script = `rm -f /tmp/through
ssh -N -L /tmp/through:/nix/var/nix/daemon-socket/socket broker@machine &
while [ ! -S /tmp/through ]; do sleep 0.1; done
nix-store -q --hash ${secret} | cat; kill $!`;
    const through = () => remote("unix:///tmp/through", "bash", "-c", script);
    const refused = await through();
    expect(refused.stdout).toBe("");
    expect(refused.stderr).toContain("open failed");
    const keys = "/home/broker/.ssh/authorized_keys";
    const line = readFileSync(machine.path(keys), "utf8");
    await place(machine, keys, line.replace(",restrict", ""), "644");
    try {
      expect((await through()).stdout).toMatch(/^sha256:/);
    } finally {
      await place(machine, keys, line, "644");
    }
  });

  test("does not speak the protocol of ssh://", async () => {
    const added = await remote("ssh://broker@machine", "nix-store", "-q", "--hash", secret);
    expect(added.code).not.toBe(0);
    expect(added.stderr).toContain("cannot connect to");
  });
});
