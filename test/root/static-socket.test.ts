import { spawn } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, nixString, sandboxScript } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { type PeerCredentials, peerCredentials } from "../../src/host/peer-credentials.ts";
import { BrokeredLab } from "./brokered-lab.ts";

const features = ["nix-broker"];

/** What the linker said of one client of the static socket. */
interface Seen {
  readonly peer: PeerCredentials;
  readonly sandbox: string;
  readonly code: string;
  readonly message: string;
  /** The "Uid:" line of the worker of that sandbox. */
  readonly workerUids: string;
}

/** The descriptor of a socket; Node has no public name for it. */
function descriptorOf(socket: Socket): number {
  return (socket as Socket & { _handle: { fd: number } })._handle.fd;
}

describe.each(lab.versions)("static sockets in build sandboxes [daemon %s]", (version) => {
  let brokered: BrokeredLab;
  let server: Server;
  const seen: Seen[] = [];

  beforeAll(async () => {
    brokered = await BrokeredLab.start(version, {
      hooks: false,
      config: `post-build-hook = ${BrokeredLab.postBuildHook}`,
      rootConfig: "end_grace_seconds=1\n",
      sandboxPaths: ["/nix/var/nix/daemon-socket=/run/nix-broker/shared"],
    });
    mkdirSync(brokered.runtime("shared"), { recursive: true });
    await brokered.startLinker();
    server = createServer((client) => {
      const peer = peerCredentials(descriptorOf(client));
      client.pause();
      void brokered.linker
        .identify(peer.pid, peer.uid)
        .then(
          (sandbox) => seen.push({ peer, sandbox, code: "", message: "", workerUids: workerUids(sandbox) }),
          ({ code, message }: { code: string; message: string }) =>
            seen.push({ peer, sandbox: "", code, message, workerUids: "" }),
        )
        .then(() => {
          const upstream = connect(brokered.daemon.socket);
          client.pipe(upstream).pipe(client);
          for (const socket of [client, upstream]) socket.on("error", () => client.destroy());
        });
    });
    await new Promise<void>((resolve) => server.listen(brokered.runtime("shared/socket"), resolve));
    chmodSync(brokered.runtime("shared/socket"), 0o666);
  });
  afterAll(async () => {
    server?.close();
    await brokered?.stop();
  });

  function workerUids(sandbox: string): string {
    const status = readFileSync(`/proc/${brokered.record(sandbox).worker?.pid}/status`, "utf8");
    return /^Uid:.*$/m.exec(status)?.[0] ?? "";
  }

  const call = `nix-store --check-validity /nix/store/${"0".repeat(32)}-x 2>&1 || :`;

  /** Builds, and says how its calls were seen. */
  async function buildSeen(
    script: string,
    name: string,
    asked: readonly string[] = features,
  ): Promise<{ calls: Seen[]; log: string }> {
    const before = seen.length;
    const whole = `export HOME=$TMPDIR NIX_REMOTE=daemon\n${script}\necho > $out`;
    const { log } = await brokered.daemon.build(sandboxScript(whole, { name, features: asked }));
    return { calls: seen.slice(before), log };
  }

  test("a build that opted in gets a sandbox of its own: paths are linked, references registered", async () => {
    writeFileSync(brokered.daemon.hostPath("/tmp/static-inner"), "inner");
    const inner = await brokered.add("/tmp/static-inner");
    const before = seen.length;
    const building = brokered.daemon.build(
      sandboxScript(
        `export HOME=$TMPDIR NIX_REMOTE=daemon; ${call}; ${call}
        while [ ! -e ${inner} ]; do sleep 0.2; done; echo ${inner} > $out`,
        { name: "static", features },
      ),
    );
    const { sandbox } = await until(() => seen[before + 1]);
    expect(seen[before]).toMatchObject({ sandbox, code: "" });
    expect(brokered.record(sandbox)).toMatchObject({
      kind: "ok",
      origin: "static",
      drvPath: expect.stringMatching(/-static\.drv$/),
      worker: { pid: expect.any(Number) },
    });
    await brokered.gain(sandbox, inner);
    const { out } = await building;
    expect(await brokered.references(out)).toEqual([inner]);
    expect(brokered.ended(sandbox)).toMatchObject({ outcome: "registered" });
  });

  test("the same build run again gets a new sandbox", async () => {
    const script = `${call}; exit 1`;
    const ids = [];
    for (const _run of ["first", "second"]) {
      const before = seen.length;
      await brokered.daemon.tryBuild(
        sandboxScript(`export HOME=$TMPDIR NIX_REMOTE=daemon\n${script}`, { name: "again", features }),
      );
      ids.push(seen[before]?.sandbox);
    }
    expect(ids.every((id) => id !== undefined && id !== "")).toBe(true);
    expect(ids[0]).not.toBe(ids[1]);
  });

  test("a build that did not opt in is told how to", async () => {
    const { calls } = await buildSeen(call, "plain", []);
    expect(calls[0]).toMatchObject({
      code: "not-opted-in",
      message: expect.stringContaining("requiredSystemFeatures"),
    });
  });

  test("G8: a derivation that cannot be read, or does not name nix-broker, counts as not asking for it", async () => {
    // Nix takes it, and does not look at what means nothing to it.
    const deep = `{"x":["nix-broker"],"y":${"[".repeat(200)}${"]".repeat(200)}}`;
    const before = seen.length;
    const { code } = await brokered.daemon.tryBuild(
      sandboxScript(
        // With structured attributes the environment is not the builder's.
        `export HOME=$TMPDIR NIX_REMOTE=daemon PATH=/lab/${version}/bin:/usr/bin:/bin\n${`${call} &\n`.repeat(8)}wait; exit 3`,
        { name: "unreadable", attributes: { __json: nixString(deep) } },
      ),
    );
    expect(code).not.toBe(0);
    expect(seen.length - before).toBe(8);
    for (const one of seen.slice(before))
      expect(one).toMatchObject({
        code: "not-opted-in",
        message: expect.stringContaining("cannot be read"),
      });
  });

  test("a process outside of builds is none, whatever it says of its uid", async () => {
    await expect(brokered.linker.identify(process.pid, 0)).rejects.toMatchObject({ code: "not-a-build" });
    await expect(brokered.linker.identify(process.pid, 1)).rejects.toMatchObject({ code: "not-a-build" });
    await expect(brokered.linker.identify(2 ** 30, 0)).rejects.toMatchObject({ code: "not-a-build" });
    await expect(brokered.linker.identify(brokered.daemon.pid, 0)).rejects.toMatchObject({
      code: "not-a-build",
    });
  });

  test("a process outside of sandboxes that mounts the chroot of a build never becomes part of it", async () => {
    const stop = brokered.daemon.hostPath("/run/nix-broker/shared/stop");
    const go = brokered.daemon.hostPath("/run/nix-broker/shared/go");
    const folder = "/nix/var/nix/daemon-socket";
    const victim = brokered.daemon.build(
      sandboxScript(
        `export HOME=$TMPDIR NIX_REMOTE=daemon
        while [ ! -e ${folder}/go ]; do sleep 0.1; done; ${call}
        while [ ! -e ${folder}/stop ]; do sleep 0.1; done; echo > $out`,
        { name: "mounted", features },
      ),
    );
    const store = brokered.daemon.hostPath("/nix/store");
    const chroot = await until(() =>
      readdirSync(store).find(
        (name) => name.endsWith("-mounted.drv.chroot") && readdirSync(`${store}/${name}`).length > 0,
      ),
    );
    // On the machine: beside the daemon there is no mount(8).
    const attacker = spawn("setpriv", [
      ...["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-U", "-r", "-m"],
      ...["sh", "-ec", `mount --bind ${store}/${chroot} /mnt; exec sleep 1000`],
    ]);
    try {
      const pid = attacker.pid!;
      await until(() => readFileSync(`/proc/${pid}/mountinfo`, "latin1").includes(`/${chroot} /mnt `));
      await expect(brokered.linker.identify(pid, 65534)).rejects.toMatchObject({ code: "not-a-build" });
      const before = seen.length;
      writeFileSync(go, "");
      const { sandbox } = await until(() => seen[before]);
      expect(brokered.record(sandbox)).toMatchObject({
        kind: "ok",
        drvPath: `/nix/store/${chroot.slice(0, -7)}`,
      });
      await expect(brokered.linker.identify(pid, 65534)).rejects.toMatchObject({ code: "not-a-build" });
    } finally {
      attacker.kill("SIGKILL");
      for (const path of [go, stop]) writeFileSync(path, "");
      await victim;
      for (const path of [go, stop]) rmSync(path);
    }
  });

  test("a builder that forges what /proc says of it never becomes another build", async () => {
    // The victim runs while the attacker tries to be it.
    const stop = "/run/nix-broker/shared/stop";
    const victim = brokered.daemon.build(
      sandboxScript(
        `export HOME=$TMPDIR NIX_REMOTE=daemon; ${call}
        while [ ! -e /nix/var/nix/daemon-socket/stop ]; do sleep 0.1; done; echo > $out`,
        { name: "victim", features },
      ),
    );
    const victimId = await brokered.sandboxNamed("victim");
    await until(() => seen.find(({ sandbox }) => sandbox === victimId));
    const chroot = brokered.record(victimId).chroot!;
    const forgery = `
      fake=$TMPDIR/fake; mkdir -p $fake/nix/store/${chroot}/nix/store $fake/${chroot} $fake/root
      for busybox in /lab/*/root/bin/busybox /lab/*/root/usr/bin/busybox; do test ! -x $busybox || break; done
      for tool in mount umount chroot; do ln -s $busybox $TMPDIR/$tool; done
      export PATH=$TMPDIR:$PATH fake
      echo "ATTACK orphan"
      cp /bin/bash $TMPDIR/nix-daemon; $TMPDIR/nix-daemon -c '(sleep 0.3; ${call}; touch $TMPDIR/orphaned) & echo FORGED'
      until [ -e $TMPDIR/orphaned ]; do sleep 0.1; done
      nested() { echo "ATTACK $1"; unshare --user --map-root-user --mount --pid --fork bash -ec "$2; echo FORGED; ${call}"; }
      nested names 'mount --bind $fake/${chroot} $fake/${chroot}; mount --bind $fake /tmp; cd /tmp/${chroot}'
      nested store 'mount --bind $fake/nix/store /nix/store'
      nested tmpfs 'mount -t tmpfs none /tmp; mkdir -p /tmp/nix/store/${chroot}; mount --bind /tmp/nix/store/${chroot} /tmp/nix'
      nested bare 'mount --rbind / $fake/root; cd $fake/root; exec chroot . bash -c "echo FORGED; ${call}"'
    `;
    const { calls, log } = await buildSeen(forgery, "attacker");
    writeFileSync(brokered.daemon.hostPath(stop), "");
    await victim;
    rmSync(brokered.daemon.hostPath(stop));
    expect(log.match(/^FORGED$/gm)).toHaveLength(5);
    expect(calls).toHaveLength(5);
    for (const { sandbox, workerUids } of calls) {
      expect(sandbox).not.toBe(victimId);
      expect(brokered.record(sandbox).drvPath).toMatch(/-attacker\.drv$/);
      // The builder's own process that is called nix-daemon is not taken for the worker.
      expect(workerUids).toBe("Uid:\t0\t0\t0\t0");
    }
  });
});

test("the linker may see the store at another place than the daemon does", async () => {
  const brokered = await BrokeredLab.start(lab.versions.at(-1)!);
  const { daemon } = brokered;
  try {
    mkdirSync(brokered.runtime(""), { recursive: true });
    const config = daemon.hostPath("/etc/nix-broker/machine.conf");
    const settings = {
      store_real: daemon.hostPath("/nix/store"),
      gcroots_dir: daemon.hostPath("/nix/var/nix/gcroots/nix-broker"),
      upstream_socket: daemon.socket,
      runtime_dir: daemon.hostPath("/run/nix-broker"),
      service_user: "0:0",
    };
    const lines = Object.entries(settings).map(([key, value]) => `${key}=${value}\n`);
    writeFileSync(config, lines.join(""));
    await brokered.startLinkerOnMachine(config);
    brokered.startStandIn();
    writeFileSync(daemon.hostPath("/tmp/inner"), "seen from elsewhere");
    const inner = await brokered.add("/tmp/inner");
    const building = daemon.build(
      sandboxScript(`while [ ! -e ${inner} ]; do sleep 0.2; done; cat ${inner}; echo ${inner} > $out`, {
        name: "elsewhere",
        features,
      }),
    );
    const id = await brokered.sandboxNamed("elsewhere");
    await brokered.gain(id, inner);
    const { out, log } = await building;
    expect(log).toContain("seen from elsewhere");
    expect(await brokered.references(out)).toEqual([inner]);
  } finally {
    await brokered.stop();
  }
});
