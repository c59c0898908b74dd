/** Builders at a socket that every build sees, who would be taken for another build. */
import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { outer } from "./scripts.ts";

const sharedFolder = "/var/lib/nix-broker/service/s";
const serviceConfig = `
[profiles.few]
extends = "build"
limits = { connections = 4 }
[hooks]
profile = "few"
`;
const noPath = `/nix/store/${"0".repeat(32)}-x`;

describe.each(lab.versions)("a hostile builder at a static socket [daemon %s]", (version) => {
  let made: RecursiveLab;
  beforeAll(async () => {
    made = await RecursiveLab.start(version, { hooks: false, serviceConfig });
  });
  afterAll(() => made?.stop());
  const host = (path: string) => made.daemon.hostPath(path);

  test("G1, G5: a build's processes stay in its sandbox, whatever they claim about themselves", async () => {
    writeFileSync(host("/tmp/secret"), "secret");
    const secret = (await made.daemon.run(["nix-store", "--add", "/tmp/secret"])).stdout.trim();
    const victim = made.daemon.build(
      outer(
        `printf secret > secret; [ "$(nix-store --add ./secret)" = ${secret} ]
touch at-victim; until [ -e /nix/var/nix/daemon-socket/go ]; do sleep 0.2; done
find /nix/store -maxdepth 1 -name '*-try-*' > $out`,
        { name: "victim" },
      ),
    );
    await made.daemon.fileInBuild("at-victim");
    const begun = (await made.audit()).filter(({ kind, op }) => kind === "sandbox" && op === "begin");
    const victimDerivation = /[a-z0-9]{32}-victim\.drv/.exec(JSON.stringify(begun))?.[0];
    expect(victimDerivation).toBeDefined();

    const attacker = await made.daemon.build(
      outer(
        `
for busybox in /lab/*/root/bin/busybox /lab/*/root/usr/bin/busybox; do test ! -x "$busybox" || break; done
mkdir tools; for tool in mount umount chroot; do ln -s "$busybox" tools/$tool; done
export PATH=$PATH:$PWD/tools
call() {
  echo "$1" > try-$1
  nix-store --add ./try-$1 > /dev/null || echo "FAILED $1"
  nix-store -q --hash ${secret} > /dev/null 2>&1 && echo "LEARNED by $1"
  echo "CALLED $1"
}
export -f call
chroot=nix/store/${victimDerivation}.chroot/root
fake=$PWD/fake; mkdir -p $fake/$chroot/nix/store
nested() { unshare --user --map-root-user --mount --pid --fork bash -c "$2 || echo FAILED; call $1"; }
call plain
nested names "mount --bind $fake/$chroot $fake/$chroot; mount --bind $fake /tmp"
nested hidden "mkdir $fake/store; mount --bind $fake/$chroot/nix/store $fake/store"
nested processes "mount -t proc none /proc"
unshare --user --map-root-user --mount --pid --fork bash -c "mount --rbind / $fake/$chroot && chroot $fake/$chroot bash -c 'cd $PWD; call chroot'" || echo FAILED chroot
cp /bin/bash nix-daemon; ./nix-daemon -c '(sleep 0.2; call orphan; touch orphaned) & :'
until [ -e orphaned ]; do sleep 0.1; done
echo > $out`,
        { name: "attacker" },
      ),
    );
    writeFileSync(host(`${sharedFolder}/go`), "");
    expect(readFileSync(host((await victim).out), "utf8")).toBe("");
    expect(attacker.log).not.toMatch(/LEARNED|FAILED/);
    expect(attacker.log.match(/^CALLED .*$/gm)).toHaveLength(6);

    const outers = (await made.audit()).filter(({ kind, op }) => kind === "sandbox" && op === "begin");
    expect(outers.filter(({ reason }) => reason === "outer build")).toHaveLength(2);
  });

  test("G8: a user who floods the socket does not keep the linker from serving others", async () => {
    const lines = readFileSync(host("/etc/passwd"), "utf8").split("\n");
    const [one = 0, other = 0] = lines
      .filter((line) => line.startsWith("nixbld"))
      .map((line) => Number(line.split(":")[2]));
    const connect = (user: number) => RawClient.connect(host(`${sharedFolder}/socket`), { user });
    await made.stopLinker();
    try {
      const told = await Promise.allSettled([one, one, one, one, one, other].map(connect));
      const texts = told.map((each) => (each.status === "rejected" ? String(each.reason) : "served"));
      expect(texts.filter((text) => text.includes("(limits.connections)"))).toHaveLength(1);
      expect(texts.filter((text) => text.includes("the linker does not answer"))).toHaveLength(5);
    } finally {
      await made.startLinker();
    }
  });

  test("a process that lives in no build is none, whoever it runs as", async () => {
    const lines = readFileSync(host("/etc/passwd"), "utf8").split("\n");
    const builder = Number(lines.find((line) => line.startsWith("nixbld"))?.split(":")[2]);
    const connect = (user: string) => RawClient.connect(host(`${sharedFolder}/socket`), { user });
    for (const user of ["alice", "nobody"]) await expect(connect(user)).rejects.toThrow("allow_uids");
    const { code, stderr } = await made.daemon.run(
      ["setpriv", "--reuid", String(builder), "--clear-groups", "nix-store", "-q", "--hash", noPath],
      { env: { NIX_REMOTE: `unix://${sharedFolder}/socket`, HOME: "/tmp" } },
    );
    expect(code).not.toBe(0);
    expect(stderr).toContain("does not live in a sandboxed build");
  });
});
