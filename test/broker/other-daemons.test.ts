/** Daemons that greet in another way than those of the lab: Lix's and Determinate's, played by stand-ins. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { program } from "../../lab/program.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { StandIn, type StandInOptions } from "../../lab/stand-in.ts";
import type { Finding } from "../../src/cli/doctor-finding.ts";
import { DaemonQuery } from "../../src/root/daemon-query.ts";
import { buildOutput } from "../attack/derivations.ts";

/** Those that speak what the others speak. */
const versions = lab.versions.filter((version) => version !== "2.3" && version !== "2.8");
/** As Lix 2.94 and later: it hangs up on clients below 1.35. */
const lix: StandInOptions = { newest: 35, floor: 35, nixVersion: "2.94.0" };

describe.each(versions)("in front of a daemon that is not Nix's [daemon %s]", (version) => {
  let daemon: Daemon;
  const running: { stop(): Promise<void> }[] = [];
  beforeAll(async () => {
    daemon = await lab.start(version, { config: `pre-build-hook = ${program.preBuildHook}\n` });
  });
  afterEach(async () => {
    for (const one of running.splice(0).reverse()) await one.stop();
  });
  afterAll(() => daemon?.stop());

  const inFront = "/run/stand-in.sock";
  async function standIn(options: StandInOptions): Promise<StandIn> {
    const made = await StandIn.start(daemon.hostPath(inFront), daemon.socket, options);
    running.push(made);
    return made;
  }
  async function brokered(options: StandInOptions): Promise<TestBroker> {
    await standIn(options);
    const broker = await startBroker(daemon, { config: `[upstream]\nsocket = "${inFront}"\n` });
    running.push(broker);
    return broker;
  }

  test("Lix: a client of the newest protocol is served, one that is too old is told which it needs", async () => {
    const broker = await brokered(lix);
    const client = await RawClient.connect(broker.hostSocket);
    expect(client.minor).toBe(35);
    const out = await buildOutput(client, { name: `for-${version}`, script: "echo built > $out" });
    expect((await client.nar(out)).toString("latin1")).toContain("built");
    client.close();

    for (const minor of [21, 34]) {
      const old = await RawClient.connect(broker.hostSocket, { minor });
      // What the view knows needs no upstream.
      expect(await old.must("IsValidPath", { path: out })).toBe(true);
      expect((await old.addText("text", "text")).error).toBe(
        `nix-broker cannot reach the nix-daemon: the nix-daemon does not serve clients as old as this one, which speaks protocol 1.${minor}; use a client of Nix 2.15 (1.35) or later`,
      );
      old.close();
    }
    const [row] = (await broker.audit()).filter(({ op }) => op === "AddTextToStore");
    expect(row).toMatchObject({
      verdict: "forward",
      upstreamError: expect.stringContaining("as old as this one"),
    });
  });

  test("Lix: root's programs ask it what they need", async () => {
    const { greeted } = await standIn(lix);
    const query = new DaemonQuery(daemon.hostPath(inFront), "/nix/store");
    const path = await RawClient.connect(daemon.socket).then(async (client) => {
      const added = await client.addText("known", "known");
      client.close();
      return added.path;
    });
    expect(await query.isValidPath(path)).toBe(true);
    expect(await query.info(path)).toMatchObject({ references: [] });
    expect(await query.validPaths([path, `/nix/store/${"0".repeat(32)}-none`])).toEqual(new Set([path]));
    await query.keep(path);
    query.close();
    expect(greeted).toEqual([38]);
  });

  test("Lix: doctor says that a pre-build hook cannot give builds a socket there", async () => {
    const diagnose = async (options: StandInOptions): Promise<Finding[]> => {
      const broker = await brokered(options);
      const { stdout } = await broker.cli("doctor", "--json");
      const { findings } = JSON.parse(stdout) as { findings: Finding[] };
      for (const one of running.splice(0).reverse()) await one.stop();
      return findings.filter(({ topic }) => topic === "Lix");
    };
    const [problem] = await diagnose(lix);
    expect(problem).toMatchObject({
      state: "problem",
      text: expect.stringContaining("Lix 2.94.0, which throws away"),
    });
    expect(problem?.advice).toContain("static sockets work with Lix");
    expect(await diagnose({ newest: 35, nixVersion: "2.92.3" })).toMatchObject([{ state: "ok" }]);
    expect(await diagnose({ newest: 35, nixVersion: "2.18.9" })).toEqual([]);
    expect(await diagnose({})).toEqual([]);
  });

  test("G4: operations of Determinate Nix and of builder-rpc-v0 are answered from the view, or denied; the connection goes on", async () => {
    const broker = await startBroker(daemon);
    running.push(broker);
    const strangers = await RawClient.connect(daemon.socket);
    const { path: strange } = await strangers.addText("a-strangers", "a stranger's");
    strangers.close();
    const client = await RawClient.connect(broker.hostSocket);
    expect([...client.table.features]).toEqual(expect.arrayContaining(["addTempRoots", "queryPathInfos"]));
    const { path: first } = await client.addText("first", "first");
    const { path: second } = await client.addText("second", first, [first]);
    expect(await client.must("AddTempRoots", { paths: [first, strange] })).toBe(1);
    const infos = await client.must("QueryPathInfos", { paths: [strange, second, first, second] });
    expect(infos.map(({ path, references }) => [path, references])).toEqual([
      [second, [first]],
      [first, []],
    ]);
    expect(infos[0]).toMatchObject({ deriver: "", registrationTime: 0, signatures: [], ultimate: false });

    const refused = await client.ask("QueryActiveBuilds", undefined);
    expect(refused.error).toBe(
      "QueryActiveBuilds is not allowed here: what else the machine builds is not disclosed",
    );
    const of = {
      path: { tag: 1, value: { derivation: { tag: 0, value: { path: first } }, output: "out" } },
    } as const;
    const submitted = await client.ask("SubmitOutput", { ...of, output: "out" });
    expect(submitted.error).toBe(
      "SubmitOutput is not allowed here: it is for the socket that Nix itself gives to builds with builder-rpc-v0",
    );
    const added = await client.ask("AddToStoreScanning", { name: "x.drv", method: "text:sha256" }, [
      Buffer.alloc(100_000),
    ]);
    expect(added.error).toContain("'x.drv' has the name of a derivation");
    expect(await client.must("IsValidPath", { path: second })).toBe(true);
    client.close();
  });

  test("Determinate: that the daemon denies access is said as it is", async () => {
    const broker = await brokered({ deniesAccess: true });
    await expect(RawClient.connect(broker.hostSocket)).rejects.toThrow(
      "nix-broker cannot reach the nix-daemon: the nix-daemon denies access to this user: it must be among its allowed-users, and not a build user",
    );
  });
});
