/** The machine fails the service: no descriptors are left, its folders go. One request may fail by that, and nothing else does. */
import { execFileSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";
import { expectServing, newest } from "./suite.ts";

const TOKEN_FILE = "/tmp/token";
/** Of descriptors that the service may have; it has about as many when it starts. */
const FEW = 40;

describe.each(newest())("faults of the machine [daemon %s]", (version) => {
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await lab.start(version);
  });
  afterAll(() => daemon?.stop());

  const beside = async (script: string): Promise<void> => {
    expect(await daemon.run(["sh", "-c", script])).toMatchObject({ code: 0 });
  };

  test("G8: a service without descriptors left serves again once there are some", async () => {
    await beside(
      `echo a-token-of-24-characters > ${TOKEN_FILE} && chown nix-broker ${TOKEN_FILE} && chmod 600 ${TOKEN_FILE}`,
    );
    const config = `[metrics]\nlisten = 9471\ntoken_file = "${TOKEN_FILE}"\n[audit]\nmax_bytes = "64 MiB"\n`;
    const broker = await startBroker(daemon, { config });
    const limit = (most: number): void => {
      const { pid } = broker.process;
      // As the service's own user: even root may need a capability for it.
      const { uid, gid } = statSync(`/proc/${pid}`);
      execFileSync("prlimit", ["--pid", `${pid}`, `--nofile=${most}:`], { uid, gid });
    };
    const client = await RawClient.connect(broker.hostSocket);
    const open: Socket[] = [];
    limit(FEW);
    for (let i = 0; i < FEW; i++) open.push(connect(broker.hostSocket), connect(9471, "127.0.0.1"));
    for (const socket of open) socket.on("error", () => undefined);
    for (let i = 0; i < 5; i++) await client.addText("without", `${i}`).catch(() => undefined);
    // The audit is looked at every five seconds.
    await new Promise((resolve) => setTimeout(resolve, 6000));
    expect(broker.process.exitCode).toBeNull();
    limit(1024);
    for (const socket of open) socket.destroy();
    client.close();
    await expectServing(broker);
    await broker.stop();
    expect(broker.process.exitCode).toBe(0);
  });

  test("G8: a service whose folders are removed serves whom it can, and stops as it should", async () => {
    const broker = await startBroker(daemon);
    const client = await RawClient.connect(broker.hostSocket);
    const made = makeDerivation({ name: "removed", script: "sleep 10; echo > $out" });
    await addDerivation(client, made);
    const building = client.build(`${made.path}!out`);
    const folder = broker.socketFolder.replace(/\/s$/, "");
    await until(() => existsSync(`${daemon.hostPath(made.path)}.chroot`));
    await beside(`rm -rf ${folder}/*/*; chown root ${folder}/*; chmod 700 ${folder}/*`);
    await new Promise((resolve) => setTimeout(resolve, 6000));
    expect(broker.process.exitCode).toBeNull();
    const stopped = broker.stop();
    expect((await building).error).toBeUndefined();
    await stopped;
    expect(broker.process.exitCode).toBe(0);
    client.close();
  });
});
