/** Upstream is there and says nothing. Most of the time nothing happens here, so all versions are tried at once. */
import { afterAll, expect, test } from "vitest";
import { startBroker } from "../../lab/broker.ts";
import { lab } from "../../lab/lab.ts";
import { connectAs } from "../../lab/line.ts";
import { childrenOf } from "../../lab/processes.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { expectServing } from "./suite.ts";

const running: { stop(): Promise<void> }[] = [];
afterAll(async () => {
  for (const one of running.reverse()) await one.stop();
});

test.concurrent.for(lab.versions)(
  "G8: an upstream that stops answering is given up after the time that the limit says, and used again [daemon %s]",
  async (version) => {
    const daemon = await lab.start(version);
    running.push(daemon);
    const broker = await startBroker(daemon, {
      config: "[limits]\nrequest_deadline = 5\n[upstream]\npool = 1\n",
    });
    running.push(broker);
    const [client, leaving] = [
      await RawClient.connect(broker.hostSocket),
      await connectAs(broker.hostSocket),
    ];
    const { path } = await client.addText("before", "before");
    // The one that makes new ones first.
    process.kill(daemon.pid, "SIGSTOP");
    const workers = childrenOf(daemon.pid);
    for (const pid of workers) process.kill(pid, "SIGSTOP");
    try {
      const during = await client.addText("during", "during");
      expect(during.error).toBe("the nix-daemon took longer than 5 seconds (limits.request_deadline)");
      // Neither the one that was ready nor a fresh connection says anything.
      const errors = [await client.addText("again", "again"), await client.addText("again", "again")];
      for (const { error } of errors) expect(error).toMatch(/request_deadline|said nothing for 20 seconds/);
      expect(errors.at(-1)?.error).toContain("said nothing for 20 seconds during the greeting");
      // What the view holds needs no upstream.
      expect(await client.must("IsValidPath", { path })).toBe(true);
    } finally {
      for (const pid of [...workers, daemon.pid]) process.kill(pid, "SIGCONT");
      leaving.destroy();
    }
    expect((await client.addText("after", "after")).error).toBeUndefined();
    await expectServing(broker);
    client.close();
  },
);
