/** Which clients share an upstream connection: those of one sandbox, one after the other, and nobody else. */
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { childrenOf } from "../../lab/processes.ts";
import { RawClient } from "../../lab/raw-client.ts";

describe.each(lab.versions)("upstream connections of a sandbox [daemon %s]", (version) => {
  let daemon: Daemon;
  /** Two sandboxes. */
  let one: TestBroker;
  let other: TestBroker;
  let text: string;
  let large: string;

  beforeAll(async () => {
    daemon = await lab.start(version);
    const script =
      "cd /tmp; echo text > text; head -c 30000000 /dev/zero > large; nix-store --add text large";
    const { stdout } = await daemon.run(["sh", "-c", script]);
    [text = "", large = ""] = stdout.trim().split("\n");
    const config = "[upstream]\npool = 0\n";
    one = await startBroker(daemon, { config, view: [text, large] });
    other = await startBroker(daemon, { config, view: [text] });
  });
  afterAll(async () => {
    await one?.stop();
    await other?.stop();
    await daemon?.stop();
  });

  const workers = (): ReadonlySet<number> => new Set(childrenOf(daemon.pid));
  /** The daemon's process that serves what the client has forwarded. */
  const workerOf = async (client: RawClient): Promise<number> => {
    const before = workers();
    await client.nar(text);
    const made = [...workers()].filter((pid) => !before.has(pid));
    return made[0] ?? 0;
  };

  test("G1: a connection left in a clean state goes to the next client of the same sandbox, never of another", async () => {
    // So that the broker's own connection is there.
    const first = await RawClient.connect(one.hostSocket);
    await first.must("QueryPathInfo", { path: text });
    const stranger = await RawClient.connect(other.hostSocket);
    await stranger.must("QueryPathInfo", { path: text });

    const worker = await workerOf(first);
    expect(worker).not.toBe(0);
    const beside = await RawClient.connect(one.hostSocket);
    const second = await workerOf(beside);
    expect([0, worker]).not.toContain(second);
    beside.close();
    first.close();
    await sleep(200);
    expect(workers()).toContain(worker);

    expect(await workerOf(stranger)).not.toBe(0);
    const next = await RawClient.connect(one.hostSocket);
    expect(await workerOf(next)).toBe(0);
    expect((await next.addText("more", "more")).error).toBeUndefined();
    next.close();
    stranger.close();
    // Nobody comes.
    await until(() => !workers().has(worker) && !workers().has(second));
  });

  test("G8: a connection that upstream closed meanwhile, or that was left mid-request, is not reused", async () => {
    const first = await RawClient.connect(one.hostSocket);
    const worker = await workerOf(first);
    expect(worker).not.toBe(0);
    first.close();
    await sleep(200);
    process.kill(worker, "SIGKILL");
    await until(() => !workers().has(worker));
    await sleep(200);
    const second = await RawClient.connect(one.hostSocket);
    const fresh = await workerOf(second);
    expect([0, worker]).not.toContain(fresh);

    // More than the sockets between hold.
    await second.send("NarFromPath", { path: large });
    await sleep(300);
    expect(workers()).toContain(fresh);
    second.close();
    await until(() => !workers().has(fresh));
    const third = await RawClient.connect(one.hostSocket);
    await third.nar(text);
    third.close();
  });
});
