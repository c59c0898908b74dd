/** A service that says how it is: bad sockets, reloads, an upstream that comes and goes, starts that fail. */
import { existsSync, lstatSync, readFileSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { program } from "../../lab/program.ts";
import { RawClient } from "../../lab/raw-client.ts";
import type { SandboxSummary, StatusReport } from "../../src/service/control/messages.ts";

const version = lab.versions.at(-1)!;
let daemon: Daemon;
beforeAll(async () => {
  daemon = await lab.start(version);
});
afterAll(() => daemon?.stop());

async function start(config: string): Promise<TestBroker> {
  const broker = await startBroker(daemon, { config });
  onTestFinished(() => broker.stop());
  return broker;
}

async function status(broker: TestBroker): Promise<{ code: number | null; report: StatusReport }> {
  const { code, stdout } = await broker.cli("status", "--json");
  return { code, report: JSON.parse(stdout) };
}

function listen(path: string, more = ""): string {
  return `[[listen]]\npath = "${path}"\nallow_uids = ["*"]\n${more}\n`;
}

describe("static sockets", () => {
  test("one that cannot be opened is told, with its own path, and stops neither the others nor the service", async () => {
    const broker = await start(
      `${listen("/nowhere/socket")}${listen("/tmp/also/socket", "").replace('"*"', '"nobody-of-that-name"')}`,
    );
    const { code, report } = await status(broker);
    expect(code).toBe(1);
    expect(report.sockets).toEqual([
      {
        path: "/nowhere/socket",
        profile: "build",
        error:
          "Cannot listen on /nowhere/socket: its folder /nowhere does not exist; make it first (ENOENT).",
      },
      { path: "/tmp/also/socket", profile: "build", error: expect.stringContaining("nobody-of-that-name") },
      { path: broker.socket, profile: "build", error: null },
    ]);
    expect(broker.log()).toContain('"socket":"/nowhere/socket"');
    const text = (await broker.cli("status")).stdout;
    expect(text).toMatch(/^static sockets +NOT OK: Cannot listen on \/nowhere\/socket.* 1 open$/m);
    const client = await RawClient.connect(broker.hostSocket);
    client.close();
  });

  test("missing folders below the runtime folder are made, for others to enter", async () => {
    const broker = await start("");
    const folder = dirname(broker.socketFolder);
    const socket = `${folder}/run/shared/agents/one/socket`;
    const file = daemon.hostPath(`${folder}/config.toml`);
    writeFileSync(file, `${listen(socket)}${readFileSync(file, "utf8")}`);
    broker.process.kill("SIGHUP");
    await until(() => existsSync(daemon.hostPath(socket)));
    for (const made of ["run/shared", "run/shared/agents", "run/shared/agents/one"])
      expect(lstatSync(daemon.hostPath(`${folder}/${made}`)).mode & 0o777).toBe(0o755);
  });
});

describe("reload", () => {
  const profile = (name: string, builds: string): string =>
    `[profiles.${name}]\nextends = "build"\noperations = [${builds}]\n`;

  test("takes up sockets and profiles without ending sandboxes; a bad configuration is told, and changes nothing", async () => {
    const broker = await start("");
    const folder = dirname(broker.socketFolder);
    const file = daemon.hostPath(`${folder}/config.toml`);
    const base = readFileSync(file, "utf8");
    const [one, two] = [`${folder}/run/one/socket`, `${folder}/run/two/socket`];
    const reload = async (config: string): Promise<void> => {
      const before = broker.log().split("taken up").length;
      writeFileSync(file, `${config}\n${base}`);
      broker.process.kill("SIGHUP");
      await until(() => broker.log().split("taken up").length > before);
    };
    const sandboxes = async (): Promise<SandboxSummary[]> =>
      JSON.parse((await broker.cli("sandboxes", "--json")).stdout);
    const at = async (path: string): Promise<SandboxSummary[]> =>
      (await sandboxes()).filter(({ socket }) => socket === path);

    await reload(listen(one, 'profile = "mine"') + listen(two) + profile("mine", '"query"'));
    const [before] = await at(one);
    expect(before?.profile).toBe("mine");
    const client = await RawClient.connect(daemon.hostPath(one));
    const inode = lstatSync(daemon.hostPath(one)).ino;

    // Nothing changes: the same sandboxes.
    await reload(listen(one, 'profile = "mine"') + listen(two) + profile("mine", '"query"'));
    expect((await at(one)).map(({ id }) => id)).toEqual([before?.id]);

    // The profile changes: who is connected stays, in the old one; the socket is the same file.
    await reload(listen(one, 'profile = "mine"') + profile("mine", '"query", "add"'));
    expect(lstatSync(daemon.hostPath(one)).ino).toBe(inode);
    expect(existsSync(daemon.hostPath(two))).toBe(false);
    expect(await at(two)).toEqual([]);
    expect((await at(one)).map(({ connections }) => connections)).toEqual([1, 0]);
    client.close();
    await until(async () => (await at(one)).length === 1);
    expect((await at(one))[0]?.id).not.toBe(before?.id);

    // A mistake.
    await reload(listen(one, 'profile = "yours"'));
    // Commands read the same file, and could not use it either.
    writeFileSync(file, base);
    const { code, report } = await status(broker);
    expect(code).toBe(1);
    expect(report.service.reloadError).toContain('there is no profile "yours"');
    expect(report.sockets.map(({ path }) => path)).toEqual([broker.socket, one]);

    // What is only read at the start is named.
    await reload("[upstream]\npool = 2\n");
    expect((await status(broker)).report.service.reloadError).toBeNull();
    expect(broker.log()).toContain('"tables":["upstream"]');
    const events = (await broker.audit("--kind", "service")).map(({ op }) => op);
    expect(events).toEqual(["start", "reload", "reload", "reload", "reload"]);
  });
});

describe("what it needs", () => {
  test("upstream that goes and comes back is told in the log and by status, whose exit code says so too", async () => {
    const own = await lab.start(version);
    onTestFinished(() => own.stop());
    const broker = await startBroker(own);
    onTestFinished(() => broker.stop());
    await until(() => broker.log().includes("upstream reached"));
    expect((await broker.cli("status")).code).toBe(0);
    // Connections are kept ready from the first client on: they show at once that their daemon has gone.
    const added = await own.run([`${lab.clientFolder(version)}/nix-store`, "--add", "/etc/passwd"], {
      env: { NIX_REMOTE: `unix://${broker.socket}` },
    });
    expect(added).toMatchObject({ code: 0 });
    await until(async () => (await status(broker)).report.pool.idle > 0);
    await own.kill(true);
    expect((await broker.cli("status")).code).toBe(1);
    await until(() => broker.log().includes("upstream cannot be used any more"));
    await own.restart();
    await until(() => broker.log().split('"upstream reached"').length > 2);
    expect((await broker.cli("status")).code).toBe(0);
  });
});

describe("a start that fails", () => {
  test("ends the process at once, whatever was opened before; configuration errors with 2", async () => {
    const broker = await start("");
    const folder = dirname(broker.socketFolder);
    const file = "/tmp/failing.toml";
    const serve = async (config: string, ...args: string[]) => {
      writeFileSync(daemon.hostPath(file), config);
      const { code, stderr } = await daemon.run(
        [process.execPath, program.cli, "serve", "--config", file, ...args],
        { user: "nix-broker" },
      );
      return { code, stderr };
    };
    const places = `[runtime]\ndir = "${folder}/run2"\nstate_dir = "${folder}/state2"\n`;
    const required = await serve(places, "--listen", "/nowhere/socket");
    expect(required.code).toBe(1);
    expect(required.stderr).toContain("nix-broker: Cannot listen on /nowhere/socket");
    const group = await serve(`${places}admin_group = "no-such-group"\n`);
    expect(group.code).toBe(2);
    expect(group.stderr).toContain("runtime.admin_group: there is no group");
    const metrics = `${places}[metrics]\nlisten = "/nowhere/metrics"\n`;
    expect(await serve(metrics)).toMatchObject({ code: 1 });
    const token = `${places}[metrics]\nlisten = 9464\ntoken_file = "/nowhere/token"\n`;
    expect(await serve(token)).toMatchObject({ code: 2 });
  });
});
