/** A daemon that was restarted while the processes of its connections live on, as systemd leaves them (KillMode=process). */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { childrenOf } from "../../lab/processes.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { buildOutput } from "../attack/derivations.ts";

describe.each(lab.versions)("a restarted daemon [daemon %s]", (version) => {
  let daemon: Daemon;
  let broker: TestBroker;
  beforeAll(async () => {
    daemon = await lab.start(version);
    broker = await startBroker(daemon);
  });
  afterAll(async () => {
    await broker?.stop();
    await daemon?.stop();
  });

  let count = 0;
  /** Builds something new, as a client of its own: what the builder sees of a file that a setting of the daemon's shows. */
  const seen = async (): Promise<string> => {
    const client = await RawClient.connect(broker.hostSocket);
    const script = "test -e /marker && echo new settings > $out || echo old settings > $out";
    const out = await buildOutput(client, { name: `settings-${++count}`, script });
    const nar = (await client.nar(out)).toString("latin1");
    client.close();
    return /(?:new|old) settings/.exec(nar)?.[0] ?? nar;
  };

  test("G1: after a restart of the daemon builds run with its new settings, not on older connections", async () => {
    // So that some are kept, and others are ready.
    for (let i = 0; i < 3; i++) expect(await seen()).toBe("old settings");
    const before = childrenOf(daemon.pid);
    expect(before.length).toBeGreaterThan(0);
    await daemon.restart("extra-sandbox-paths = /marker=/etc/passwd\n", false);
    const alive = (pid: number): boolean => {
      try {
        return process.kill(pid, 0);
      } catch {
        return false;
      }
    };
    // Those that are kept for clients end by themselves after some seconds; the one that has the sandbox's roots does not.
    expect(before.filter(alive)).not.toEqual([]);
    for (let i = 0; i < 8; i++) expect(await seen()).toBe("new settings");
    // None but that one is held open.
    while (before.filter(alive).length > 1) await new Promise((resolve) => setTimeout(resolve, 50));
  });
});
