import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runCommand } from "../../lab/command.ts";
import { describeEachVersion } from "../../lab/fixture.ts";
import { lab, sandboxScript } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { processesWithMountsOf } from "../../lab/processes.ts";
import { slotMarker } from "../../lab/slot.ts";
import { nearestVersion, projectRoot } from "../../lab/versions.ts";

const folder = mkdtempSync(join(tmpdir(), "lab-test-"));
const marker = join(folder, "marker");
const server = createServer((connection) => connection.destroy());

beforeAll(async () => {
  writeFileSync(marker, "seen");
  // Build users have to get there, so that only the sandbox keeps them from it.
  chmodSync(folder, 0o755);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});

afterAll(() => {
  server.close();
  rmSync(folder, { recursive: true });
});

/** Makes each build differ, so that none is answered from the store. */
function unique(name: string): string {
  return `${name}-${process.hrtime.bigint()}`;
}

/** What mounts of the lab system whose /nix this is have in their root field. */
function markerOf(nix: string): string {
  return slotMarker(Number(basename(dirname(nix))));
}

test.each(lab.versions)("a fresh daemon has made its store's database [daemon %s]", async (version) => {
  const daemon = await lab.start(version);
  try {
    // Nix writes that file last.
    expect(existsSync(daemon.hostPath("/nix/var/nix/db/schema"))).toBe(true);
  } finally {
    await daemon.stop();
  }
});

describeEachVersion(
  "a daemon",
  (version, daemon) => {
    test("is of the version that was asked for", async () => {
      expect(daemon().fullVersion).toMatch(new RegExp(`^${version.replace(".", "\\.")}\\.`));
      const program = await daemon().run(["readlink", `/proc/${daemon().pid}/exe`]);
      const { stdout } = await daemon().run([program.stdout.trim(), "--version"]);
      expect(stdout).toContain(`(Nix) ${daemon().fullVersion}`);
      expect(lab.fullVersion(version)).toBe(daemon().fullVersion);
    });

    test("builds a derivation with an input", async () => {
      const input = sandboxScript("echo from the input > $out", { name: unique("input") });
      const script = '{ cat "$dep"; echo "$dep"; id -u; } > $out; echo a line of the log';
      const { out, log } = await daemon().build(sandboxScript(script, { attributes: { dep: `(${input})` } }));
      const [text, path] = readFileSync(daemon().hostPath(out), "utf8").split("\n");
      expect(text).toBe("from the input");
      expect(log).toContain("a line of the log");
      const { stdout } = await daemon().run(["nix-store", "-q", "--references", out]);
      expect(stdout.trim()).toBe(path);
      expect(statSync(daemon().hostPath(out)).uid).toBe(0);
    });

    test("reports a build that fails", async () => {
      const result = await daemon().tryBuild(
        sandboxScript("echo so be it; false", { name: unique("fails") }),
      );
      expect(result.code).not.toBe(0);
      expect(result.log).toContain("so be it");
      await expect(daemon().build(sandboxScript("exit 1", { name: unique("fails") }))).rejects.toThrow(
        /nix-build/,
      );
    });

    test("builds in a real sandbox: no files and no network of the machine", async () => {
      const address = server.address();
      if (address === null || typeof address === "string") throw new Error("The server has no port.");
      const script = `
        if [ -e ${marker} ] || [ -e /host ]; then echo "sees the machine's files"; fi
        if (exec 3<>/dev/tcp/127.0.0.1/${address.port}) 2>/dev/null; then echo "reaches the machine"; fi
        ls /proc | grep -c '^[0-9]*$'
        sed 1,2d /proc/net/dev | cut -d: -f1
      `;
      const build = sandboxScript(`{ ${script} } > $out`, { name: unique("walls") });
      const { out } = await daemon().build(build);
      const lines = readFileSync(daemon().hostPath(out), "utf8")
        .split("\n")
        .map((line) => line.trim());
      const processes = Number(lines.shift());
      expect(processes).toBeLessThan(10);
      expect(lines.filter((line) => !["", "lo"].includes(line))).toEqual([]);
      // The same beside the daemon succeeds, so the test does see what it looks for.
      const beside = await daemon().run([
        "bash",
        "-c",
        `cat /host${marker}; exec 3<>/dev/tcp/127.0.0.1/${address.port}`,
      ]);
      expect(beside).toMatchObject({ code: 0, stdout: "seen" });
    });

    test.each(lab.versions)("talks to a client of %s, on the machine and beside it", async (client) => {
      const hello = sandboxScript("echo hello > $out", { name: unique("hello") });
      const { out } = await daemon().build(hello, { client });
      const store = join(daemon().root, "store");
      const target = { socket: daemon().socket, store, user: "alice" };
      const info = await lab.client(client, ["nix-store", "-q", "--hash", out], target);
      expect(info).toMatchObject({ code: 0, stdout: expect.stringMatching(/^sha256:/) });
      const built = await lab.client(client, ["nix-build", "--no-out-link", "-"], {
        ...target,
        input: hello,
      });
      expect(built).toMatchObject({ code: 0, stdout: `${out}\n` });
      const number = await lab.client(client, ["nix-build", "--version"], target);
      expect(number.stdout).toContain(lab.fullVersion(client));
    });

    test.each(lab.versions)("starts a client of %s inside a sandbox", async (client) => {
      const build = sandboxScript("nix --version > $out", { name: unique("inner"), client });
      const { out } = await daemon().build(build);
      expect(readFileSync(daemon().hostPath(out), "utf8")).toContain(lab.fullVersion(client));
    });

    test("runs Node inside a sandbox, from the project", async () => {
      const node = realpathSync(process.execPath);
      const { out } = await daemon().build(sandboxScript(`${node} -p 6*7 > $out`, { name: unique("node") }));
      expect(readFileSync(daemon().hostPath(out), "utf8")).toBe("42\n");
    });

    test("knows the users of the lab, and runs commands as them", async () => {
      for (const user of ["root", "nix-broker", "alice", "nobody"]) {
        const { stdout } = await daemon().run(["id", "-un"], { user });
        expect(stdout).toBe(`${user}\n`);
      }
      const refused = await daemon().run(["setpriv", "true"], { user: "alice", env: { PATH: "/nowhere" } });
      expect(refused.code).not.toBe(0);
      const { log } = await daemon().build(sandboxScript("touch $out", { name: unique("user") }));
      expect(log).toContain("building");
      expect(daemon().log()).toContain("user alice");
    });

    test("hands input and environment to commands", async () => {
      const options = { input: "one\n", env: { TWO: "two" }, cwd: "/var" };
      const { stdout } = await daemon().run(["bash", "-c", 'cat; echo "$TWO"; pwd'], options);
      expect(stdout).toBe("one\ntwo\n/var\n");
    });

    test("shows what was bound, at its path", async () => {
      expect((await daemon().run(["cat", "/bound/marker"])).stdout).toBe("seen");
      expect((await daemon().run(["bash", "-c", "echo x > /bound/marker"])).code).not.toBe(0);
      const { out } = await daemon().build(
        sandboxScript("cat /inside/marker > $out", { name: unique("bound") }),
      );
      expect(readFileSync(daemon().hostPath(out), "utf8")).toBe("seen");
    });

    test("calls its pre-build hook, with the machine's pids", async () => {
      await daemon().build(sandboxScript("touch $out", { name: unique("hooked") }));
      const calls = readFileSync(daemon().hostPath("/var/hook.log"), "utf8").trim().split("\n");
      const [grandparent, derivation] = calls.at(-1)?.split(" ") ?? [];
      expect(derivation).toMatch(/^\/nix\/store\/.*-hooked-[0-9]+\.drv$/);
      expect(Number(grandparent)).toBe(daemon().pid);
    });

    test("starts again after a kill, with its store and another configuration", async () => {
      const { out } = await daemon().build(sandboxScript("echo kept > $out", { name: unique("kept") }));
      const before = daemon().pid;
      await daemon().kill();
      expect((await daemon().run(["nix-store", "-q", "--hash", out], { user: "alice" })).code).not.toBe(0);
      await daemon().restart("max-jobs = 1");
      expect(daemon().pid).not.toBe(before);
      expect((await daemon().run(["nix-store", "-q", "--hash", out], { user: "alice" })).code).toBe(0);
      expect(readFileSync(daemon().hostPath("/etc/nix/nix.conf"), "utf8")).toMatch(/max-jobs = 1\n/);
    });
  },
  {
    binds: [{ source: folder, target: "/bound", readonly: true }],
    sandboxPaths: ["/inside=/bound", projectRoot, dirname(realpathSync(process.execPath))],
    config: `pre-build-hook = ${join(import.meta.dirname, "hook-for-test.sh")}`,
  },
);

describe("the lab", () => {
  const version = lab.versions.at(-1) ?? "2.34";

  test("runs several daemons of one version side by side, with build users of their own", async () => {
    const daemons = await Promise.all([
      lab.start(version),
      lab.start(version),
      lab.start(version, { memory: true }),
    ]);
    try {
      const script = sandboxScript("sleep 1; sed -n 's/^ *0 *//p' /proc/self/uid_map; touch $out");
      const builds = await Promise.all(daemons.map((one) => one.build(script)));
      expect(new Set(builds.map(({ out }) => out)).size).toBe(1);
      const users = await Promise.all(
        daemons.map(async (one) => (await one.run(["id", "-u", "nixbld1"])).stdout),
      );
      expect(new Set(users).size).toBe(daemons.length);
      const devices = daemons.map((one) => statSync(one.root).dev);
      expect(devices[0]).toBe(devices[1]);
      expect(devices[2]).toBe(statSync("/dev/shm").dev);
    } finally {
      await Promise.all(daemons.map((one) => one.stop()));
    }
  });

  test("leaves no process and no folder behind, also of a build that runs", async () => {
    const daemon = await lab.start(version);
    const build = daemon.tryBuild(
      sandboxScript("echo started > $out; while :; do read -t 1 < <(:) || :; done"),
    );
    const service = daemon.spawn(["sleep", "infinity"], { user: "nix-broker" });
    await until(
      async () => !(await daemon.run(["bash", "-c", "echo /nix/store/*.lock"])).stdout.includes("*"),
    );
    const marker = markerOf(daemon.root);
    expect(processesWithMountsOf(marker).length).toBeGreaterThanOrEqual(5);
    const ended = once(service, "exit");
    await daemon.stop();
    await daemon.stop();
    expect((await build).code).not.toBe(0);
    await ended;
    expect(processesWithMountsOf(marker)).toEqual([]);
    expect(existsSync(dirname(daemon.root))).toBe(false);
  });

  test("clears what a killed test process left, at the next start", async () => {
    const program = `
      import { lab, sandboxScript } from ${JSON.stringify(join(import.meta.dirname, "../../lab/lab.ts"))};
      const daemon = await lab.start(${JSON.stringify(version)});
      daemon.tryBuild(sandboxScript("while :; do read -t 1 < <(:) || :; done")).catch(() => {});
      console.log(daemon.root);
      setInterval(() => {}, 1000);
    `;
    const child = spawn(process.execPath, ["--input-type=module-typescript", "-e", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    const root = line.toString().trim();
    await until(() => processesWithMountsOf(markerOf(root)).length >= 5);
    child.kill("SIGKILL");
    await once(child, "exit");
    const daemon = await lab.start(version);
    await daemon.stop();
    expect(processesWithMountsOf(markerOf(root))).toEqual([]);
    expect(existsSync(root)).toBe(false);
  });

  test.each(lab.versions)("runs a daemon of %s without root", async (rootless) => {
    const daemon = await lab.startRootless(rootless);
    try {
      expect(statSync(daemon.socket).uid).not.toBe(0);
      const { out } = await daemon.build(sandboxScript("ls / > $out", { name: unique("rootless") }));
      const top = readFileSync(daemon.hostPath(out), "utf8").split("\n");
      expect(top).toContain("lab");
      expect(top).not.toContain("host");
      expect(statSync(daemon.hostPath(out)).uid).not.toBe(0);
      const query = ["nix-store", "-q", "--hash", out];
      const { code } = await lab.client(rootless, query, { socket: daemon.socket, user: "alice" });
      expect(code).toBe(0);
    } finally {
      await daemon.stop();
    }
  });

  test("fetches a tool where the machine has none, and runs it", async () => {
    const socat = await lab.tool("socat");
    const { code, stdout } = await runCommand([socat, "-V"]);
    expect({ code, stdout }).toMatchObject({ code: 0, stdout: expect.stringContaining("socat version") });
  });

  test("ends a command that takes too long, and says what it printed", async () => {
    const daemon = await lab.start(version);
    try {
      const endless = daemon.run(["bash", "-c", "echo hm >&2; sleep 1000"], { timeoutMs: 3000 });
      await expect(endless).rejects.toThrow(/3000 ms(.|\n)*hm/);
    } finally {
      await daemon.stop();
    }
  });

  test("refuses what it cannot do, with a reason", async () => {
    await expect(lab.start(version, { buildUsers: 64 })).rejects.toThrow(/0 to 63 build users, not 64/);
    await expect(lab.start(version, { config: "not a setting" })).rejects.toThrow(
      /ended by itself(.|\n)*not a setting/,
    );
    const daemon = await lab.start(version);
    expect(() => daemon.run(["true"], { user: "mallory" })).toThrow(/no user "mallory"/);
    await daemon.stop();
    expect(() => daemon.run(["true"])).toThrow(/was stopped/);
  });
});

test.each([
  ["2.36.0", "2.34"],
  ["2.34.8", "2.34"],
  ["2.30.1", "2.26"],
  ["2.18", "2.8"],
  ["2.2.2", "2.3"],
  ["3.0", "2.34"],
])("a named Nix %s is tested as %s", (fullVersion, version) => {
  expect(nearestVersion(fullVersion)).toBe(version);
});
