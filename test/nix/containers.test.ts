/** Real podman and systemd-nspawn, by the commands of docs/sandboxes.md and the devcontainer of docs/tools.md. */
import { dirname } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { shellQuote } from "../../lab/command.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { machineDevices } from "../devices.ts";
import { codeBlock, place, simple } from "./fixture.ts";
import { describeWithMachine, Machine } from "./machine.ts";

/** Of a user namespace: the uid that is root in there, as the machine sees it. */
const mapped = "500000";

interface Container {
  readonly program: "podman" | "systemd-nspawn";
  /** Who starts it. */
  readonly user: "alice" | "root";
  /** Whom the page says to allow. */
  readonly allow: "alice" | "root" | typeof mapped;
  readonly options?: readonly string[];
}

/** What tools give to podman or docker out of a devcontainer.json. */
interface Devcontainer {
  readonly mounts: readonly string[];
  readonly containerEnv: Readonly<Record<string, string>>;
  readonly runArgs: readonly string[];
}

const uidMap = [`--uidmap=0:${mapped}:65536`, `--gidmap=0:${mapped}:65536`];
const privateUsers = [`--private-users=${mapped}:65536`];
const containers: Readonly<Record<string, Container>> = {
  "podman, rootless": { program: "podman", user: "alice", allow: "alice" },
  "podman of root": { program: "podman", user: "root", allow: "root" },
  "podman of root, user namespace": { program: "podman", user: "root", allow: mapped, options: uidMap },
  "systemd-nspawn": { program: "systemd-nspawn", user: "root", allow: "root" },
  "systemd-nspawn, user namespace": {
    program: "systemd-nspawn",
    user: "root",
    allow: mapped,
    options: privateUsers,
  },
};

/** What the page leaves open: where the container's files are. And no systemd runs that has cgroups or a register. */
const needed = {
  podman: (folder: string) => ["--cgroups=disabled", "--rootfs", folder],
  "systemd-nspawn": (folder: string) => [
    ...["--quiet", "--pipe", "--register=no", "--keep-unit"],
    `--directory=${folder}`,
  ],
};

// The programs do not know the version of Nix: the oldest and the newest tell enough.
const versions = [...new Set([lab.versions.at(0), lab.versions.at(-1)])].filter((each) => each !== undefined);

describeWithMachine("containers", versions, (version) => {
  let daemon: Daemon;
  let machine: Machine;
  let made: string;
  const devices = machineDevices();
  const brokers = new Map<string, TestBroker>();
  const folders = new Map<string, string>();
  beforeAll(async () => {
    daemon = await lab.start(version);
    for (const allow of ["alice", "root", mapped])
      brokers.set(allow, await startBroker(daemon, { profile: "agent", view: "store", allow }));
    const binds = [...brokers].map(([name, { hostSocket }]) => ({
      source: dirname(hostSocket),
      target: `/run/nix-broker/shared/${name}`,
    }));
    machine = await Machine.start(daemon, binds);
    for (const name of brokers.keys()) folders.set(name, await machine.container(name));
    for (const file of ["/etc/subuid", "/etc/subgid"])
      await place(machine, file, `alice:${mapped}:65536\nroot:${mapped}:65536\n`, "644");
    made = (await daemon.build(simple("in-the-store"))).out;
  });
  afterAll(async () => {
    // What systemd-nspawn leaves is in a cgroup that is not the machine's own: that of the tests.
    await machine?.run(["rmdir", "/sys/fs/cgroup/payload", "/sys/fs/cgroup/supervisor"]);
    machine?.stop();
    for (const broker of brokers.values()) await broker.stop();
    await daemon?.stop();
  });

  /** Runs a script in a container that has the socket of somebody. */
  const run = ({ program, user, allow, options = [] }: Container, socketOf: string, script: string) => {
    const page = codeBlock("sandboxes.md", "A container: podman, `systemd-nspawn`", "sh", `exec ${program}`);
    const command = page.replace("/shared/ci:", `/shared/${socketOf}:`);
    const rest = [...options, ...needed[program](folders.get(allow) ?? ""), "bash", "-c", script];
    const env = { XDG_RUNTIME_DIR: `/run/user/${user}` };
    return machine.run(["bash", "-c", command, "bash", ...rest], { user, env });
  };

  describe.each(Object.entries(containers))("%s", (title, container) => {
    test("has the store and the broker: looks, builds and reads, and no more", async () => {
      const expression = simple(`in-${title.replaceAll(/\W+/g, "-")}`);
      const { stdout, stderr } = await run(
        container,
        container.allow,
        `nix-store -q --hash ${made} | cat
cat ${made}
path=$(nix-build --no-out-link -E ${shellQuote(expression)}) && cat $path
nix-store --gc > /dev/null && echo collected
echo mine > /nix/store/mine && echo written
ls -A /nix/var/nix
tail -n +3 /proc/net/dev | cut -d: -f1
readlink /proc/self/ns/net`,
      );
      const network = await machine.must("readlink", "/proc/self/ns/net");
      expect(stderr).toContain("CollectGarbage is not allowed here");
      expect(stderr).toContain("/nix/store/mine: Read-only file system");
      expect(stdout).toMatch(/^sha256:[0-9a-z]+\nmade\nmade\ndaemon-socket\n *lo\nnet:\[\d+\]\n$/);
      expect(stdout).not.toContain(network);
      const denied = (await brokers.get(container.allow)?.audit("--verdict", "deny")) ?? [];
      expect(denied.map(({ op }) => op)).toContain("CollectGarbage");
    });

    test("is refused at a socket that does not allow its user", async () => {
      const others = container.allow === "root" ? "alice" : "root";
      const refused = await run(container, others, "nix-store --add /etc/passwd");
      expect(refused.code).not.toBe(0);
      expect(refused.stderr).toMatch(/may not use this socket/);
    });
  });

  test("a devcontainer of docs/tools.md has them, too: its mounts and options are podman's", async () => {
    const page = codeBlock("tools.md", "devcontainers", "json", '{\n  "mounts"');
    const { mounts, containerEnv, runArgs } = JSON.parse(
      page.replace("/shared/jails/agent,", "/shared/alice,"),
    ) as Devcontainer;
    const variables = Object.entries(containerEnv).map(([key, value]) => `--env=${key}=${value}`);
    const places = [...mounts.map((mount) => `--mount=${mount}`), ...variables, ...runArgs];
    const script = `cat $(nix-build --no-out-link -E ${shellQuote(simple("in-a-devcontainer"))})
echo mine > /nix/store/mine
ls -A /nix/var/nix
tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '`;
    const rest = [...needed.podman(folders.get("alice") ?? ""), "bash", "-c", script];
    const { stdout, stderr } = await machine.run(["podman", "run", "--rm", ...places, ...rest], {
      user: "alice",
      env: { XDG_RUNTIME_DIR: "/run/user/alice" },
    });
    expect(stderr).toContain("/nix/store/mine: Read-only file system");
    expect(stdout).toBe("made\ndaemon-socket\nlo\n");
  });

  test("the machine's own devices are as they were", () => expect(machineDevices()).toEqual(devices));
});
