/** What the service says when it cannot start, or not with this upstream. */
import { dirname } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { RawClient } from "../../lab/raw-client.ts";
import type { StatusReport } from "../../src/service/control/messages.ts";
import { newest } from "./suite.ts";

describe.each(newest())("startup faults [daemon %s]", (version) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await lab.start(version);
  });
  afterAll(() => daemon?.stop());

  const listenOn = (path: string) => ({
    config: `[[listen]]\npath = "${path}"\nview = "empty"\nallow_uids = ["*"]\n`,
  });
  const serve = async (path: string): Promise<TestBroker> => startBroker(daemon, listenOn(path));
  /** Why a service that serves all else does not serve there. */
  const failureAt = async (path: string): Promise<string | null | undefined> => {
    const broker = await serve(path);
    const status: StatusReport = JSON.parse((await broker.cli("status", "--json")).stdout);
    await broker.stop();
    return status.sockets.find((socket) => socket.path === path)?.error;
  };

  test("a stale socket is replaced, a busy one and a file are not", async () => {
    const path = "/tmp/static";
    const killed = await serve(path);
    await killed.stop("SIGKILL");
    const next = await serve(path);
    const client = await RawClient.connect(daemon.hostPath(path));
    expect(await failureAt(path)).toBe(`Another process listens on ${path}; stop it or listen elsewhere.`);
    expect((await client.addText("still", "served")).error).toBeUndefined();
    client.close();
    await next.stop();
    expect(await daemon.run(["sh", "-c", "echo precious > /tmp/file"])).toMatchObject({ code: 0 });
    expect(await failureAt("/tmp/file")).toContain("/tmp/file exists and is not a socket");
    expect((await daemon.run(["cat", "/tmp/file"])).stdout).toBe("precious\n");
  });

  test("a store folder that is not upstream's is named in the error, with the key to set", async () => {
    const broker = await startBroker(daemon, { config: '[upstream]\nstore_dir = "/other/store"\n' });
    await expect(RawClient.connect(broker.hostSocket)).rejects.toThrow(
      /the nix-daemon's store is not \/other\/store .*set upstream.store_dir/s,
    );
    expect(broker.process.exitCode).toBeNull();
    await broker.stop();
  });

  test("a second service does not write the audit of one that runs", async () => {
    const running = await startBroker(daemon);
    const folder = dirname(running.socketFolder);
    const config = `[runtime]\ndir = "/tmp/second"\nstate_dir = "${folder}/state"\n`;
    await daemon.run(["sh", "-c", "cat > /tmp/second.toml"], { input: config });
    const second = await running.cli("serve", "--config", "/tmp/second.toml");
    expect(second).toMatchObject({ code: 1 });
    const { service } = JSON.parse((await running.cli("status", "--json")).stdout);
    expect(second.stderr).toContain(
      `Another nix-broker (process ${service.pid}) uses the audit in ${folder}/state/audit.`,
    );
    await running.stop("SIGKILL");
    const next = await startBroker(daemon, { folder });
    await next.stop();
  });

  test("bad configurations are named with line and key, and exit codes tell them from other failures", async () => {
    const running = await startBroker(daemon);
    const serveWith = async (config: string) => {
      await daemon.run(["sh", "-c", "cat > /tmp/config.toml"], { input: config });
      return running.cli("serve", "--config", "/tmp/config.toml");
    };
    const unknown = await serveWith("[upstream]\nsockt = '/x'\n");
    expect(unknown).toMatchObject({ code: 2 });
    expect(unknown.stderr).toMatch(/sockt.*socket/s);
    const folder = "[runtime]\ndir = '/tmp/r'\nstate_dir = '/nonexistent/state'\n";
    const unwritable = await serveWith(folder);
    expect(unwritable).toMatchObject({ code: 1 });
    expect(unwritable.stderr).toContain("/nonexistent/state");
    await running.stop();
  });
});
