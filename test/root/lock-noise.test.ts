/** Which builds are over must not depend on what others do with locks of their own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { parseRootConfig } from "../../src/contract/root-config.ts";
import { printSandboxRecord } from "../../src/contract/sandbox-record.ts";
import { readLocks } from "../../src/root/output-locks.ts";
import { processStat } from "../../src/root/process-tree.ts";
import { SandboxTable } from "../../src/root/sandbox-table.ts";
import { BrokeredLab } from "./brokered-lab.ts";
import { recordOf } from "./records.ts";

/** Takes 1000 locks in a file of its own, one by one, and drops them all at once, without end. */
const noise = `
use Fcntl qw(F_SETLK F_WRLCK F_UNLCK SEEK_SET);
open(my $file, ">", "$ARGV[0]/file") or die;
sub lock { my ($type, $start, $length) = @_; fcntl($file, F_SETLK, pack("s s x4 q q l x4", $type, SEEK_SET, $start, $length, 0)) or die; }
$| = 1; print "ready";
while (1) { lock(F_WRLCK, 2 * (1001 - $_), 1) for 1 .. 1000; lock(F_UNLCK, 0, 0); }`;

/** The kernel lists the locks that were taken on one processor after the other: those of the first disturb all. */
function firstProcessor(): string {
  return /^Cpus_allowed_list:\t([0-9]+)/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1] ?? "0";
}

const strangers: ChildProcess[] = [];
const folders: string[] = [];
afterEach(() => {
  for (const child of strangers.splice(0)) child.kill("SIGKILL");
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true });
});

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "lock-noise-"));
  folders.push(folder);
  return folder;
}

/** Three processes that make noise. */
async function startStrangers(): Promise<void> {
  for (const _each of [1, 2, 3])
    await startPerl("taskset", ["-c", firstProcessor(), "perl", "-e", noise, temporaryFolder()]);
}

/** Starts a program that says when it is ready. */
async function startPerl(program: string, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  strangers.push(child);
  await once(child.stdout!, "data");
  return child;
}

describe.each(lab.versions)("while strangers take and drop locks [daemon %s]", (version) => {
  let brokered: BrokeredLab;
  afterEach(() => brokered?.stop());

  test("G6, G8: a running build is never considered over, and a finished one never running", async () => {
    brokered = await BrokeredLab.start(version);
    await brokered.startLinker();
    brokered.startStandIn();
    const paths: string[] = [];
    for (const name of ["first", "last"]) {
      writeFileSync(brokered.daemon.hostPath(`/tmp/${name}`), `${name}\n`);
      paths.push(await brokered.add(`/tmp/${name}`));
    }
    const [first = "", last = ""] = paths;
    const names = ["one", "two", "three", "four"];
    const builds = names.map((name) =>
      brokered.daemon.build(
        sandboxScript(`until [ -e ${last} ]; do sleep 0.2; done; echo ${first} ${last} > $out`, {
          name,
          features: ["nix-broker"],
        }),
      ),
    );
    const ids = await Promise.all(names.map((name) => brokered.sandboxNamed(name)));
    for (const id of ids) await brokered.gain(id, first);
    await startStrangers();
    // The linker looks every second.
    for (let look = 0; look < 6; look++) {
      expect(ids.map((id) => brokered.ended(id))).toEqual(ids.map(() => undefined));
      await sleep(500);
    }
    for (const id of ids) await brokered.gain(id, last);
    for (const { out } of await Promise.all(builds))
      expect(await brokered.references(out)).toEqual([first, last].sort());

    await brokered.daemon.tryBuild(sandboxScript("exit 1", { name: "fails", features: ["nix-broker"] }));
    await until(() =>
      brokered.sandboxIds().every((each) => brokered.ended(each) !== undefined) ? true : undefined,
    );
  });
});

test("G6: while there is noise no look concludes that a worker is done; the first ones without its lock do", async () => {
  const folder = temporaryFolder();
  const id = "s".repeat(32);
  const out = `/nix/store/${"a".repeat(32)}-foo`;
  for (const below of ["roots", `sandboxes/${id}`, "store"])
    mkdirSync(join(folder, below), { recursive: true, mode: 0o755 });
  const lock = join(folder, "store", `${"a".repeat(32)}-foo.lock`);
  const hold = 'use Fcntl ":flock"; open(my $f, ">", $ARGV[0]); flock($f, LOCK_EX); $| = 1; print "held";';
  const wait = "sleep 1000; unlink $ARGV[0]; close $f; sleep 1000";
  const worker = await startPerl("perl", ["-e", `$SIG{USR1} = sub {}; ${hold} ${wait}`, lock]);
  const { pid, startTime, boot } = processStat(worker.pid!)!;
  const record = recordOf(id, `/nix/store/${"a".repeat(32)}-foo.drv`, {
    outputs: { out },
    worker: { pid, startTime, boot },
  });
  writeFileSync(join(folder, `sandboxes/${id}/sandbox.json`), printSandboxRecord(record), { mode: 0o600 });
  const lines = `runtime_dir=${folder}\ngcroots_dir=${folder}/roots\nstore_real=${folder}/store\n`;
  let settled = 0;
  const table = new SandboxTable(parseRootConfig(lines, "test"), { uid: 0, gid: 0 }, async () => {
    settled++;
    return { outcome: "registered", violations: [], error: "" };
  });
  table.scan();
  await startStrangers();
  for (let look = 0; look < 150; look++) await table.tend();
  await new Promise((resolve) => setImmediate(resolve));
  expect(settled).toBe(0);

  worker.kill("SIGUSR1");
  await until(() => !existsSync(lock));
  await until(async () => {
    await table.tend();
    return settled > 0 || undefined;
  });
});

describe("the locks that a process has open", () => {
  const output = (name: string) => `/nix/store/${"a".repeat(32)}-${name}`;
  const here = () => {
    const stat = processStat(process.pid);
    if (!stat) throw new Error("/proc does not know this process");
    return stat;
  };

  test("are told by their names, removed or not, until they are closed", () => {
    const folder = temporaryFolder();
    const file = join(folder, `${"a".repeat(32)}-foo.lock`);
    expect(readLocks(here(), [output("foo")])).toBe("free");
    const descriptor = openSync(file, "w");
    expect(readLocks(here(), [output("bar"), output("foo")])).toBe("held");
    expect(readLocks(here(), [output("fo")])).toBe("free");
    unlinkSync(file);
    expect(readLocks(here(), [output("foo")])).toBe("held");
    closeSync(descriptor);
    expect(readLocks(here(), [output("foo")])).toBe("free");
  });

  test("are not known of a process that cannot be looked at", () => {
    expect(readLocks({ ...here(), pid: 2 ** 30 }, [output("foo")])).toBe("unknown");
  });
});
