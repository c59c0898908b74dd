/** What most of these tests need: for each version a bare daemon, a broker before it, and clients of both. */
import { afterAll, beforeAll, describe, expect } from "vitest";
import { type BrokerOptions, startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, type DaemonOptions, lab, type NixVersion } from "../../lab/lab.ts";
import { type ConnectOptions, RawClient } from "../../lab/raw-client.ts";
import { addDerivation, makeDerivation } from "./derivations.ts";

export interface Attack {
  readonly version: NixVersion;
  /** The protocol version of the daemon. */
  readonly minor: number;
  readonly daemon: () => Daemon;
  readonly broker: () => TestBroker;
  /** A client of the daemon itself, as an ordinary user. */
  bare(options?: ConnectOptions): Promise<RawClient>;
  /** A client of the broker. */
  brokered(options?: ConnectOptions): Promise<RawClient>;
  /** The two to compare, the daemon first. */
  both(): Promise<readonly [RawClient, RawClient]>;
  /** Where on the machine a store path of the daemon's is. */
  hostPath(path: string): string;
}

export interface AttackOptions {
  readonly broker?: BrokerOptions;
  readonly daemon?: DaemonOptions;
  /** Default all. */
  readonly versions?: () => readonly NixVersion[];
}

/** The oldest and the newest: where what matters is the form of the protocol. */
export function extremes(): NixVersion[] {
  return [...new Set([lab.versions[0], lab.versions.at(-1)])].filter((v) => v !== undefined);
}
export function newest(): NixVersion[] {
  return lab.versions.slice(-1);
}

const minors: Readonly<Record<NixVersion, number>> = {
  "2.3": 21,
  "2.8": 34,
  "2.26": 38,
  "2.34": 38,
  host: 38,
};

/** Describes tests for each version; daemon and broker are shared, clients are closed after all. */
export function describeAttack(
  name: string,
  tests: (attack: Attack) => void,
  options: AttackOptions = {},
): void {
  describe.each(options.versions?.() ?? lab.versions)(`${name} [daemon %s]`, (version) => {
    let running: Daemon | undefined;
    let started: TestBroker | undefined;
    const clients: RawClient[] = [];
    const connect = async (socket: string, how?: ConnectOptions): Promise<RawClient> => {
      const client = await RawClient.connect(socket, how);
      clients.push(client);
      return client;
    };
    const broker = (): TestBroker => {
      if (!started) throw new Error("The broker is only there inside tests and hooks.");
      return started;
    };
    const daemon = (): Daemon => {
      if (!running) throw new Error("The daemon is only there inside tests and hooks.");
      return running;
    };
    beforeAll(async () => {
      running = await lab.start(version, options.daemon);
      started = await startBroker(running, options.broker);
    });
    afterAll(async () => {
      for (const client of clients) client.close();
      await started?.stop();
      await running?.stop();
    });
    const bare = (how?: ConnectOptions) => connect(daemon().socket, how);
    const brokered = (how?: ConnectOptions) => connect(broker().hostSocket, how);
    tests({
      version,
      minor: minors[version],
      daemon,
      broker,
      bare,
      brokered,
      both: async () => [await bare(), await brokered()],
      hostPath: (path) => daemon().hostPath(path),
    });
  });
}

/** A new client of the broker can add, build and read. */
export async function expectServing(broker: TestBroker): Promise<void> {
  const client = await RawClient.connect(broker.hostSocket);
  expect(await client.addText("serves", "again")).toMatchObject({ error: undefined });
  const made = makeDerivation({ name: "again", script: "echo again > $out" });
  await addDerivation(client, made);
  expect((await client.build(`${made.path}!out`)).error).toBeUndefined();
  expect((await client.nar(made.out)).toString("latin1")).toContain("again");
  client.close();
  expect(broker.process.exitCode).toBeNull();
}
