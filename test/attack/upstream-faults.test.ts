/** Upstream is away, dies, or comes back as another version: clients are told, and the service lives on. */
import { existsSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { type BrokerOptions, startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { EndOfStream } from "../../src/protocol/byte-stream.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { expectServing } from "./suite.ts";

describe.each(lab.versions)("upstream faults [daemon %s]", (version) => {
  const running: { stop(): Promise<void> }[] = [];
  afterEach(async () => {
    for (const one of running.splice(0).reverse()) await one.stop();
  });
  async function start(
    config = "",
    options: BrokerOptions = {},
  ): Promise<{ daemon: Daemon; broker: TestBroker }> {
    const daemon = await lab.start(version);
    running.push(daemon);
    const broker = await startBroker(daemon, { config, ...options });
    running.push(broker);
    return { daemon, broker };
  }

  test("G8: an upstream that is missing at the start is reported, and used once it is there", async () => {
    const daemon = await lab.start(version);
    running.push(daemon);
    await daemon.kill(true);
    const broker = await startBroker(daemon);
    running.push(broker);
    await expect(RawClient.connect(broker.hostSocket)).rejects.toThrow(
      "nix-broker cannot reach the nix-daemon: cannot connect to the nix-daemon: ",
    );
    expect(broker.log()).toContain("upstream cannot be used yet");
    await daemon.restart();
    await expectServing(broker);
  });

  test("G8: an upstream that is killed between requests gives a clear error, and the next request works", async () => {
    const { daemon, broker } = await start();
    const client = await RawClient.connect(broker.hostSocket);
    const { path } = await client.addText("before", "before");
    await daemon.kill(true);
    expect((await client.addText("during", "during")).error).toMatch(/nix-daemon/);
    // What the view holds needs no upstream.
    expect(await client.must("IsValidPath", { path })).toBe(true);
    await daemon.restart();
    expect((await client.addText("after", "after")).error).toBeUndefined();
    await expectServing(broker);
    client.close();
  });

  test("G8: an upstream that is killed in the middle of a build gives a clear error", async () => {
    const { daemon, broker } = await start();
    const client = await RawClient.connect(broker.hostSocket);
    const made = makeDerivation({ name: "killed", script: "echo started; sleep 1000; echo > $out" });
    await addDerivation(client, made);
    const building = client.build(`${made.path}!out`);
    await until(() => existsSync(`${daemon.hostPath(made.path)}.chroot`));
    await daemon.kill(true);
    expect((await building).error).toBe(
      "the connection to the nix-daemon broke; it may have been restarted: try again",
    );
    await daemon.restart();
    await expectServing(broker);
    client.close();
  });

  test("a graceful stop lets a build that is under way end, and takes no other request", async () => {
    const { daemon, broker } = await start();
    const client = await RawClient.connect(broker.hostSocket);
    const idle = await RawClient.connect(broker.hostSocket);
    const made = makeDerivation({ name: "last", script: "sleep 5; echo > $out" });
    await addDerivation(client, made);
    const building = client.build(`${made.path}!out`);
    await until(() => existsSync(`${daemon.hostPath(made.path)}.chroot`));
    const stopped = broker.stop();
    // Whoever waits for nothing is hung up on.
    await expect(idle.outcome()).rejects.toThrow(EndOfStream);
    await expect(RawClient.connect(broker.hostSocket)).rejects.toThrow();
    expect((await building).error).toBeUndefined();
    await stopped;
    expect(broker.process.exitCode).toBe(0);
    expect(existsSync(daemon.hostPath(made.out))).toBe(true);
    client.close();
  });

  test("a graceful stop cuts off after its time what does not end", async () => {
    const { daemon, broker } = await start("", { runtime: 'stop_grace = "1 s"' });
    const client = await RawClient.connect(broker.hostSocket);
    const made = makeDerivation({ name: "endless", script: "sleep 1000; echo > $out" });
    await addDerivation(client, made);
    const building = client.build(`${made.path}!out`).catch((error: Error) => error);
    await until(() => existsSync(`${daemon.hostPath(made.path)}.chroot`));
    await broker.stop();
    expect(broker.process.exitCode).toBe(0);
    expect(await building).toBeInstanceOf(EndOfStream);
    client.close();
  });

  // One other each, so that older ones follow newer ones and the other way round.
  const { versions } = lab;
  const other = versions[(versions.indexOf(version) + 1) % versions.length] ?? version;
  if (other !== version)
    test("G8: an upstream that is replaced by another version serves the next connection", async () => {
      const link = "/var/lib/nix-broker/upstream";
      const first = await lab.start(version);
      running.push(first);
      const second = await lab.start(other);
      running.push(second);
      const point = async (to: Daemon): Promise<void> => {
        const argv = ["ln", "-sfn", `/host${to.socket}`, link];
        expect(await first.run(argv)).toMatchObject({ code: 0 });
      };
      await point(first);
      const broker = await startBroker(first, { config: `[upstream]\nsocket = "${link}"\n` });
      running.push(broker);
      const client = await RawClient.connect(broker.hostSocket);
      expect((await client.addText("of", "the first")).error).toBeUndefined();
      await point(second);
      await first.kill(true);
      // Told once and for all: what was agreed on with the client may not be had any more.
      const answer = await client
        .addText("of", "the second")
        .catch((error: Error) => ({ error: error.message }));
      if (answer.error !== undefined) expect(answer.error).toMatch(/nix-daemon|connect again/);
      client.close();
      let next: RawClient | undefined;
      for (let attempt = 0; !next; attempt++) {
        expect(attempt).toBeLessThan(3);
        next = await RawClient.connect(broker.hostSocket).catch(() => undefined);
        const added = await next?.addText("of", "the second");
        if (added?.error !== undefined) next = undefined;
      }
      const direct = await RawClient.connect(second.socket);
      expect(next.minor).toBe(direct.minor);
      next.close();
      direct.close();
    });
});
