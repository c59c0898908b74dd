/** Builders that attack what they were given, and users and builds that would get at another build's sandbox. */
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { connectAs } from "../../lab/line.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { addDerivation, makeDerivation } from "../attack/derivations.ts";
import { outer } from "./scripts.ts";

const projectRoot = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");
const script = readFileSync(`${import.meta.dirname}/hostile-builder.sh`, "utf8");
const noPath = `/nix/store/${"0".repeat(32)}-x`;

/** What the tests look at beside a daemon. */
class Beside {
  readonly made: RecursiveLab;

  constructor(made: RecursiveLab) {
    this.made = made;
  }

  host(path: string): string {
    return this.made.daemon.hostPath(path);
  }

  list(path: string): string[] {
    const folder = this.host(path);
    return existsSync(folder) ? readdirSync(folder).sort() : [];
  }

  async run(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.made.daemon.run(argv);
    expect(code, `${argv.join(" ")}: ${stderr}`).toBe(0);
    return stdout;
  }

  get buildUids(): number[] {
    const lines = readFileSync(this.host("/etc/passwd"), "utf8").split("\n");
    return lines.filter((line) => line.startsWith("nixbld")).map((line) => Number(line.split(":")[2]));
  }

  /** The processes that run as one of the build users, with their uids. */
  buildProcesses(): Map<number, number> {
    const uids = new Set(this.buildUids);
    const found = new Map<number, number>();
    for (const name of readdirSync("/proc").filter((each) => /^\d+$/.test(each))) {
      const stats = statSync(`/proc/${name}`, { throwIfNoEntry: false });
      if (stats && uids.has(stats.uid)) found.set(Number(name), stats.uid);
    }
    return found;
  }

  /** The live sandbox of the build of that name; waits for it. */
  sandboxOf(name: string): Promise<string> {
    return until(() =>
      this.list("/run/nix-broker/sandboxes").find((id) => !id.startsWith(".") && this.isLive(id, name)),
    );
  }

  private isLive(id: string, name: string): boolean {
    const folder = this.host(`/run/nix-broker/sandboxes/${id}`);
    if (existsSync(`${folder}/ended`)) return false;
    try {
      return readFileSync(`${folder}/sandbox.json`, "utf8").includes(`-${name}.drv"`);
    } catch {
      // Removed since it was listed.
      return false;
    }
  }

  /** Lets a build go on that runs `pause`. */
  go(id: string): void {
    writeFileSync(this.host(`/run/nix-broker/sandboxes/${id}/socket.d/go`), "");
  }

  /** Waits until the build of that name has come to its `pause`. */
  atPause(name: string): Promise<void> {
    return this.made.daemon.fileInBuild(`at-${name}`);
  }
}

/** In a builder: waits for the test. */
function pause(name: string) {
  return `touch at-${name}; until [ -e /nix/var/nix/daemon-socket/go ]; do sleep 0.2; done`;
}

describe.each(lab.versions)("a hostile builder [daemon %s]", (version) => {
  let made: RecursiveLab;
  let beside: Beside;
  beforeAll(async () => {
    made = await RecursiveLab.start(version);
    beside = new Beside(made);
  });
  afterAll(() => made?.stop());

  test("G4, G5, G8: a hostile builder changes nothing outside its sandbox, and leaves nothing behind", async () => {
    const folders = ["/run/nix-broker", "/nix/var/nix/gcroots/nix-broker", "/etc/nix", "/tmp"];
    const before = folders.map((folder) => beside.list(folder));
    const { out, log } = await made.daemon.build(
      sandboxScript(script, { name: "hostile", features: ["nix-broker"] }),
    );
    expect(log.match(/^(DONE|FAILED): .*$/gm)).toBeNull();
    expect(log.match(/^ATTACKED .*$/gm)).toHaveLength(3);
    const refused = log.match(/^REFUSED .*the builder made an entry of its own at .*$/gm);
    expect(refused).toHaveLength(5);

    expect(beside.buildProcesses()).toEqual(new Map());
    await until(() => beside.list("/run/nix-broker/sandboxes").length === 0);
    // "derivations" is made with the first sandbox.
    const after = folders.map((folder) => beside.list(folder).filter((name) => name !== "derivations"));
    expect(after).toEqual(before.map((names) => names.filter((name) => name !== "derivations")));
    const rows = (await made.audit()).length;
    expect(await made.audit()).toHaveLength(rows);

    const references = await beside.run("nix-store", "-q", "--references", out);
    expect(references).toMatch(/^\S+-afterwards\n$/);
    // What it was refused to see was built all the same, and is what the derivation says.
    for (const kind of ["link-to-folder", "link-to-nothing", "link-to-file", "folder", "file"]) {
      const [name] = beside.list("/nix/store").filter((each) => each.slice(33) === kind);
      expect(readFileSync(beside.host(`/nix/store/${name}`), "utf8")).toBe(`${kind}\n`);
    }
    await beside.run("nix-store", "--verify", "--check-contents");
  });
});

describe.each(lab.versions)("a sandbox and those outside of it [daemon %s]", (version) => {
  let made: RecursiveLab;
  let beside: Beside;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { sandboxPaths: [projectRoot] });
    beside = new Beside(made);
  });
  afterAll(() => made?.stop());

  test("two outer builds at once: neither learns of the other, reaches it, or disturbs it", async () => {
    await made.daemon.run(["sh", "-c", "echo secret > /tmp/secret"]);
    const secret = (await beside.run("nix-store", "--add", "/tmp/secret")).trim();
    const victim = made.daemon.build(
      outer(
        `echo secret > secret; [ "$(nix-store --add ./secret)" = ${secret} ]
${pause("victim")}
for n in 1 2 3 4 5; do echo $n > file; cat "$(nix-store --add ./file)"; done > $out`,
        { name: "victim" },
      ),
    );
    const victimId = await beside.sandboxOf("victim");
    await beside.atPause("victim");
    const attacker = made.daemon.build(
      outer(
        `
learns() { if "$@" > /dev/null 2>&1; then echo "DONE: $*"; fi; }
learns nix-store -q --hash ${secret}
learns ls ${secret}
learns ls /run/nix-broker
learns ls -d /nix/store/*.chroot
learns grep -r ${victimId} /proc/self/mountinfo /etc/nix /nix/var
[ "$(ls -A /nix/var/nix)" = daemon-socket ] || echo "DONE: /nix/var/nix holds $(ls -A /nix/var/nix)"
[ "$(ls -A /nix/var/nix/daemon-socket)" = socket ] || echo "DONE: $(ls -A /nix/var/nix/daemon-socket)"
for process in /proc/[0-9]*; do learns grep -z 'at-vic[t]im' $process/cmdline; done
${process.execPath} ${projectRoot}/test/recursive/hostile-flood.mjs &
flood=$!
${pause("attacker")}
kill $flood
echo > $out`,
        { name: "attacker" },
      ),
    );
    const attackerId = await beside.sandboxOf("attacker");
    await beside.atPause("attacker");
    // The victim does its work while the attacker floods its own socket.
    beside.go(victimId);
    const { out } = await victim;
    expect(readFileSync(beside.host(out), "utf8")).toBe("1\n2\n3\n4\n5\n");
    beside.go(attackerId);
    expect((await attacker).log).not.toMatch(/DONE/);
    const denied = await made.audit("--sandbox", attackerId, "--verdict", "deny");
    expect(denied.some(({ reason }) => reason?.includes("limits.connections"))).toBe(true);
  });

  test("another user cannot reach a sandbox's socket; one that does is none of the build's", async () => {
    const building = made.daemon.build(
      outer(`nix-store -q --hash ${noPath} || true\n${pause("mine")}\necho > $out`, { name: "mine" }),
    );
    const id = await beside.sandboxOf("mine");
    await beside.atPause("mine");
    const folder = `/run/nix-broker/sandboxes/${id}`;
    const hostSocket = beside.host(`${folder}/socket.d/socket`);
    for (const user of ["alice", "nobody"]) {
      const { code, stderr } = await made.daemon.run(["ls", folder], { user });
      expect(code).not.toBe(0);
      expect(stderr).toContain("Permission denied");
      await expect(connectAs(hostSocket, user)).rejects.toThrow("EACCES");
    }
    // As if they had got by the folders above.
    chmodSync(beside.host("/run/nix-broker/sandboxes"), 0o755);
    chmodSync(beside.host(folder), 0o755);
    for (const user of ["alice", "nobody"])
      await expect(RawClient.connect(hostSocket, { user })).rejects.toThrow(/is not the user of this build/);
    const own = [...beside.buildProcesses().values()][0]!;
    const others = beside.buildUids.filter((uid) => uid !== own);
    await expect(RawClient.connect(hostSocket, { user: others[0]! })).rejects.toThrow(
      /is not the user of this build/,
    );
    await (await RawClient.connect(hostSocket, { user: own })).must("IsValidPath", { path: noPath });
    beside.go(id);
    await building;
  });

  test("a connection that outlives its build is closed, and what it asked for is cancelled", async () => {
    const building = made.daemon.build(
      outer(`nix-store -q --hash ${noPath} || true\n${pause("over")}\necho > $out`, { name: "over" }),
    );
    const id = await beside.sandboxOf("over");
    await beside.atPause("over");
    const folder = beside.host(`/run/nix-broker/sandboxes/${id}`);
    chmodSync(beside.host("/run/nix-broker/sandboxes"), 0o755);
    chmodSync(folder, 0o755);
    const uid = [...beside.buildProcesses().values()][0]!;
    const [idle, busy] = [
      await RawClient.connect(`${folder}/socket.d/socket`, { user: uid }),
      await RawClient.connect(`${folder}/socket.d/socket`, { user: uid }),
    ];
    await idle.must("IsValidPath", { path: noPath });
    // It prints for the reason told in half-close.test.ts.
    const endless = makeDerivation({
      name: "endless",
      script: "while :; do echo on and on; sleep 0.5; done",
    });
    const path = await addDerivation(busy, endless);
    await busy.send("BuildPaths", { paths: [`${path}!out`], mode: 0 });
    await until(() => new Set(beside.buildProcesses().values()).size >= 2);
    beside.go(id);
    await building;
    await idle.untilClosed();
    await busy.untilClosed();
    await until(() => beside.buildProcesses().size === 0);
    await until(() => !existsSync(folder));
    expect(beside.list("/nix/var/nix/gcroots/nix-broker")).toEqual([]);
    const [ended] = (await made.audit("--sandbox", id)).filter(
      (row) => row.kind === "sandbox" && row.op === "end",
    );
    expect(ended?.reason).toContain("this sandbox has ended");
  });
});
