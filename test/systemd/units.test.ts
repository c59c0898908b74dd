import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { runCommand, startProcess } from "../../lab/command.ts";
import { type Daemon, lab, sandboxScript } from "../../lab/lab.ts";
import { until, watchPart, wordsOf } from "../../lab/parts.ts";
import { RecursiveLab } from "../../lab/recursive.ts";
import { startServer, type TestServer } from "../fetching/server.ts";
import { Systemd, unitFolder, units } from "./init.ts";

describe("unit files", () => {
  let folder: string;
  let analyze: string;
  beforeAll(async () => {
    analyze = await lab.tool("systemd-analyze", "systemd");
    folder = mkdtempSync(join(tmpdir(), "nix-broker-units-"));
    for (const unit of units) cpSync(join(unitFolder, unit), join(folder, unit));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("systemd-analyze verify has nothing to say", async () => {
    // The program of the units is not installed on this machine.
    for (const unit of units) {
      const text = readFileSync(join(folder, unit), "utf8");
      writeFileSync(join(folder, unit), text.replaceAll(/(Exec\w+=)nix-broker/g, "$1/bin/true"));
    }
    const { code, stderr } = await runCommand([
      analyze,
      "verify",
      // They are installed by a package.
      "--man=no",
      ...units.map((unit) => join(folder, unit)),
    ]);
    // Before 253 there is no such type; the line before it counts.
    const older = /Failed to parse service type, ignoring: notify-reload$/;
    const ours = stderr.split("\n").filter((line) => line.includes("nix-broker") && !older.test(line));
    expect(ours).toEqual([]);
    expect(code).toBe(0);
  });

  test("a flood of records hides no anchor: the journal drops none of the service's lines", () => {
    const text = readFileSync(join(unitFolder, "nix-broker.service"), "utf8");
    expect(text).toMatch(/^LogRateLimitIntervalSec=0$/m);
  });

  test.each([
    ["nix-broker.service", 2.0],
    ["nix-broker-linker.service", 2.5],
    ["nix-broker-fetch@.service", 2.5],
  ])("systemd-analyze security: the exposure of %s is below %d", async (unit, limit) => {
    const { stdout } = await runCommand([
      analyze,
      "security",
      "--offline=true",
      "--no-pager",
      join(folder, unit),
    ]);
    const exposure = Number(/Overall exposure level for \S+: ([0-9.]+)/.exec(stdout)?.[1]);
    expect(exposure).toBeGreaterThan(0);
    expect(exposure).toBeLessThan(limit);
  });
});

const version = lab.versions.at(-1) ?? "2.34";
const socket = "/run/nix-broker/shared/socket";

describe("under a real systemd", () => {
  let daemon: Daemon;
  let systemd: Systemd;
  let server: TestServer;
  beforeAll(async () => {
    daemon = await lab.start(version);
    server = await startServer();
    server.serve("/file", "fetched");
    systemd = await Systemd.start(
      daemon,
      `[[listen]]
path = "${socket}"
allow_uids = ["*"]
profile = "fetching"
[profiles.fetching]
extends = "build"
fixed_outputs = ["${server.url}/*"]
[fetch]
private_hosts = ["127.0.0.1"]
`,
    );
    await systemd.run("systemd-tmpfiles", "--create", "nix-broker.conf");
    const started = await systemd.run(
      "systemctl",
      "start",
      "nix-broker.socket",
      "nix-broker-fetch.socket",
      "nix-broker.service",
      "nix-broker-linker.service",
    );
    if (started.code !== 0) throw new Error(`${started.stderr}\n${await systemd.log()}`);
  });
  afterAll(async () => {
    systemd?.stop();
    await Promise.all([daemon?.stop(), server?.stop()]);
  });

  const addFile = () =>
    systemd.run(
      "env",
      `NIX_REMOTE=unix://${socket}`,
      "HOME=/root",
      `${lab.clientFolder(version)}/nix-store`,
      "--add",
      "/etc/machine-id",
    );

  test("service and linker run with every restriction, and say that they are ready", async () => {
    expect(await systemd.show("nix-broker.service", "ActiveState")).toBe("active");
    expect(await systemd.show("nix-broker.service", "StatusText")).toContain("1 static socket");
    expect(await systemd.show("nix-broker-linker.service", "ActiveState")).toBe("active");
    const capabilities = async (unit: string): Promise<string> => {
      const pid = await systemd.show(unit, "MainPID");
      return (await systemd.run("grep", "-h", "CapEff", `/proc/${pid}/status`)).stdout.trim();
    };
    expect(await capabilities("nix-broker.service")).toBe("CapEff:\t0000000000000000");
    // CHOWN, DAC_OVERRIDE, FOWNER, SYS_PTRACE.
    expect(await capabilities("nix-broker-linker.service")).toBe("CapEff:\t000000000008000b");
  });

  const statusText = (): Promise<string> => systemd.show("nix-broker.service", "StatusText");
  const config = "/etc/nix-broker/config.toml";

  test("the status line says that upstream and linker are reached, and is kept current", async () => {
    await until(async () => (await statusText()).startsWith("upstream reached"));
    await until(async () => (await statusText()).includes("; linker reached; "));
    await systemd.run("systemctl", "stop", "nix-broker-linker.service");
    await until(async () => (await statusText()).startsWith("linker NOT reached"));
    await systemd.run("systemctl", "start", "nix-broker-linker.service");
    await until(async () => (await statusText()).startsWith("upstream reached"));
  });

  test("systemctl reload takes up what is new, keeps what is served, and fails for a mistake, which changes nothing", async () => {
    const pid = await systemd.show("nix-broker.service", "MainPID");
    const before = readFileSync(systemd.path(config), "utf8");
    const added = "/run/nix-broker/shared/more/socket";
    writeFileSync(systemd.path(config), `${before}\n[[listen]]\npath = "${added}"\n`);
    expect(await systemd.run("systemctl", "reload", "nix-broker.service")).toMatchObject({ code: 0 });
    await until(async () => (await statusText()).includes("2 static sockets"));
    expect((await systemd.run("test", "-S", added)).code).toBe(0);

    writeFileSync(systemd.path(config), "[[listen]]\npth = 1\n");
    expect((await systemd.run("systemctl", "reload", "nix-broker.service")).code).not.toBe(0);
    writeFileSync(systemd.path(config), before);
    expect((await systemd.run("test", "-S", added)).code).toBe(0);
    expect(await systemd.run("systemctl", "reload", "nix-broker.service")).toMatchObject({ code: 0 });
    await until(async () => (await statusText()).includes("1 static socket"));
    expect((await systemd.run("test", "-S", added)).code).not.toBe(0);
    expect(await systemd.show("nix-broker.service", "MainPID")).toBe(pid);
    expect(await systemd.show("nix-broker.service", "ActiveState")).toBe("active");
    expect(await addFile()).toMatchObject({ code: 0 });
  });

  test("a configuration that cannot be used is not started again and again", async () => {
    const before = readFileSync(systemd.path(config), "utf8");
    await systemd.run("systemctl", "stop", "nix-broker.service", "nix-broker.socket");
    writeFileSync(systemd.path(config), "[upstream]\nsockt = 1\n");
    expect((await systemd.run("systemctl", "start", "nix-broker.service")).code).not.toBe(0);
    expect(await systemd.show("nix-broker.service", "ActiveState")).toBe("failed");
    expect(await systemd.show("nix-broker.service", "ExecMainStatus")).toBe("2");
    expect(await systemd.show("nix-broker.service", "NRestarts")).toBe("0");
    writeFileSync(systemd.path(config), before);
    await systemd.run("systemctl", "start", "nix-broker.socket", "nix-broker.service");
    expect(await addFile()).toMatchObject({ code: 0 });
  });

  test("clients of the activated socket are served", async () => {
    const added = await addFile();
    expect(added).toMatchObject({ code: 0 });
    expect(added.stdout).toMatch(/^\/nix\/store\/[0-9a-z]{32}-machine-id\n$/);
    const journal = await systemd.run("journalctl", "-u", "nix-broker", "-o", "cat", "--no-pager");
    expect(journal.stdout).toContain("activated=true");
  });

  test("the journal has text with priorities: journalctl -p err finds errors, of the start and of the service", async () => {
    const errors = async (unit: string): Promise<string> =>
      (await systemd.run("journalctl", "-u", unit, "-p", "err", "-o", "cat", "--no-pager")).stdout;
    // Of the tests above.
    const found = await errors("nix-broker.service");
    expect(found).toMatch(/^the linker cannot be used: builds that opt in are refused: error="/m);
    expect(found).toMatch(/^nix-broker: \/etc\/nix-broker\/config\.toml cannot be used:$/m);
    expect(found).toMatch(/^ {2}line 2: upstream\.sockt: there is no such key; did you mean "socket"\?$/m);
    expect(found).not.toMatch(/[{}<]|listening/);
    const all = await systemd.run("journalctl", "-u", "nix-broker", "-o", "cat", "--no-pager");
    expect(all.stdout).toMatch(
      /^listening: socket=\/run\/nix-broker\/shared\/socket profile=fetching view=empty /m,
    );
    // Programs read these: nix-broker audit verify --anchors.
    expect(all.stdout).toMatch(/^\{"level":30,.*"anchor":"\d+ \S+"/m);
    // Whatever the linker says is a problem.
    expect(await systemd.show("nix-broker-linker.service", "SyslogLevel")).toBe("3");
  });

  test("what a profile lets it fetch is fetched in a unit of its own, which is gone afterwards", async () => {
    const expression = `derivation {
      name = "fetched"; system = "builtin"; builder = "builtin:fetchurl"; url = "${server.url}/file";
      outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fetched";
    }`;
    const built = await systemd.run(
      "env",
      "--chdir=/root",
      `NIX_REMOTE=unix://${socket}`,
      "HOME=/root",
      `${lab.clientFolder(version)}/nix-build`,
      "--no-out-link",
      "-E",
      expression,
    );
    expect(built.code, `${built.stderr}${await systemd.log()}`).toBe(0);
    expect(server.asked).toEqual([{ path: "/file", agent: "nix-broker" }]);
    expect(await systemd.show("nix-broker-fetch.socket", "NAccepted")).toBe("1");
    await until(async () => (await systemd.show("nix-broker-fetch.socket", "NConnections")) === "0");
  });

  test("G8: what is downloaded, or waits to be scanned, is on the disk and not in memory", async () => {
    let letGo = (): void => undefined;
    server.serve("/held", (_, response) => {
      letGo = () => response.destroy();
      response.write("a beginning");
    });
    const expression = `derivation {
      name = "held"; system = "builtin"; builder = "builtin:fetchurl"; url = "${server.url}/held";
      outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "held";
    }`;
    startProcess(
      systemd.commandLine(
        ...["env", "--chdir=/root", `NIX_REMOTE=unix://${socket}`, "HOME=/root"],
        ...[`${lab.clientFolder(version)}/nix-build`, "--no-out-link", "-E", expression],
      ),
    );
    try {
      // As in most systems: the test's /tmp is memory.
      expect((await systemd.run("stat", "-fc", "%T", "/tmp")).stdout).toBe("tmpfs\n");
      const onDisk = (await systemd.run("stat", "-c", "%d", "/var/tmp")).stdout;
      const held = `for fd in /proc/[0-9]*/fd/*; do
        case $(readlink $fd) in *nix-broker-fetch-*) stat -Lc %d $fd ;; esac
      done`;
      await until(async () => (await systemd.run("sh", "-c", held)).stdout !== "");
      expect((await systemd.run("sh", "-c", held)).stdout).toBe(onDisk);
      const service = `/proc/${await systemd.show("nix-broker.service", "MainPID")}/environ`;
      expect((await systemd.run("sh", "-c", `tr '\\0' '\\n' < ${service}`)).stdout).toContain(
        "TMPDIR=/var/tmp\n",
      );
    } finally {
      letGo();
    }
    await until(async () => (await systemd.show("nix-broker-fetch.socket", "NConnections")) === "0");
  });

  test("G8: clients that come and go do not close the fetchers' socket for good", async () => {
    const socketPath = systemd.path("/run/nix-broker-fetch.sock");
    for (let i = 0; i < 300; i++)
      await new Promise<void>((resolve) => {
        const client = connect(socketPath, () => client.destroy());
        client.on("error", () => undefined).on("close", () => resolve());
      });
    await until(async () => (await systemd.show("nix-broker-fetch.socket", "NConnections")) === "0");
    expect(await systemd.show("nix-broker-fetch.socket", "ActiveState")).toBe("active");
    // From 255 on systemd slows them down before that.
    expect(await systemd.show("nix-broker-fetch.socket", "TriggerLimitIntervalUSec")).toBe("0");
  });

  test("a fetcher whose client has left ends, whatever its server does", async () => {
    server.serve("/endless", (_, response) => {
      const drip = setInterval(() => response.write("."), 100);
      response.on("close", () => clearInterval(drip));
    });
    const expression = `derivation {
      name = "endless"; system = "builtin"; builder = "builtin:fetchurl"; url = "${server.url}/endless";
      outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "endless";
    }`;
    const left = await systemd.run(
      "env",
      "--chdir=/root",
      `NIX_REMOTE=unix://${socket}`,
      "HOME=/root",
      `${lab.clientFolder(version)}/nix-build`,
      ...["--no-out-link", "--timeout", "5", "-E"],
      expression,
    );
    expect(left.code).not.toBe(0);
    expect(server.asked).toContainEqual({ path: "/endless", agent: "nix-broker" });
    await until(async () => (await systemd.show("nix-broker-fetch.socket", "NConnections")) === "0");
  });

  test("the linker reaches the daemon and can write to the store", async () => {
    const reply = await new Promise<string>((resolve, reject) => {
      const connection = connect(systemd.path("/run/nix-broker/linker.sock"), () =>
        connection.write('{"id":1,"op":"status"}\n'),
      );
      connection.on("error", reject).once("data", (text) => {
        connection.destroy();
        resolve(text.toString());
      });
    });
    expect(JSON.parse(reply)).toMatchObject({ ok: true, upstream: "ok", store: "ok" });
  });

  test("a client that comes while the service is stopped waits, and is served by the next one", async () => {
    await systemd.run("systemctl", "stop", "nix-broker.service");
    expect(await systemd.show("nix-broker.socket", "ActiveState")).toBe("active");
    expect(await addFile()).toMatchObject({ code: 0 });
    expect(await systemd.show("nix-broker.service", "ActiveState")).toBe("active");
  });

  test("a service that hangs is ended by the watchdog and started again", async () => {
    await systemd.run("mkdir", "-p", "/run/systemd/system/nix-broker.service.d");
    await systemd.run(
      "sh",
      "-c",
      "printf '[Service]\\nWatchdogSec=2\\n' > /run/systemd/system/nix-broker.service.d/w.conf",
    );
    await systemd.run("systemctl", "daemon-reload");
    await systemd.run("systemctl", "restart", "nix-broker.service");
    const hung = await systemd.show("nix-broker.service", "MainPID");
    await systemd.run("kill", "-STOP", hung);
    await until(async () => {
      const pid = await systemd.show("nix-broker.service", "MainPID");
      const active = await systemd.show("nix-broker.service", "ActiveState");
      return active === "active" && pid !== hung && pid !== "0";
    });
    expect(await systemd.show("nix-broker.service", "NRestarts")).not.toBe("0");
    expect(await addFile()).toMatchObject({ code: 0 });
  });
});

/** The capabilities that the unit leaves the linker. */
function boundingSet(): string {
  const text = readFileSync(join(unitFolder, "nix-broker-linker.service"), "utf8");
  return /^CapabilityBoundingSet=(.*)$/m.exec(text)?.[1] ?? "";
}

describe.each(lab.versions)("the linker's capabilities are enough [daemon %s]", (nixVersion) => {
  let recursive: RecursiveLab;
  beforeAll(async () => {
    recursive = await RecursiveLab.start(nixVersion, { rootConfig: "hook_wait_ms=60000\n" });
    await recursive.stopLinker();
  });
  afterAll(() => recursive?.stop());

  test("for an outer build, its links and what is settled after a failure", async () => {
    const root = join(import.meta.dirname, "../../src/root/main.ts");
    const linker = recursive.daemon.spawn([
      process.execPath,
      join(import.meta.dirname, "bounded.ts"),
      boundingSet(),
      process.execPath,
      root,
      "linker",
    ]);
    // One linker at a time, also if this test is tried again.
    onTestFinished(async () => {
      if (linker.exitCode !== null || linker.signalCode !== null) return;
      linker.kill();
      await once(linker, "exit");
    });
    const errors = wordsOf(linker);
    watchPart(recursive.daemon, "the linker", linker, errors);
    const inner = `nix-build --no-out-link -E 'derivation { name = "inner"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo deep > $out" ]; }'`;
    const script = (end: string): string =>
      `export HOME=$PWD/home PAGER=cat; mkdir -p $HOME; path=$(${inner}); cat $path; ${end}`;
    const built = await recursive.daemon.build(
      sandboxScript(script("echo $path > $out"), { name: "outer", features: ["nix-broker"] }),
    );
    const { stdout } = await recursive.daemon.run(["nix-store", "-q", "--references", built.out]);
    expect(stdout).toMatch(/-inner\n$/);
    const failed = await recursive.daemon.tryBuild(
      sandboxScript(script("false"), { name: "failing", features: ["nix-broker"] }),
    );
    expect(failed.code).not.toBe(0);
    const roots = recursive.daemon.hostPath("/nix/var/nix/gcroots/nix-broker");
    await until(() => execFileSync("ls", [roots], { encoding: "utf8" }) === "");
    expect(errors()).toBe("");
    expect(linker.exitCode).toBeNull();
  });
});
