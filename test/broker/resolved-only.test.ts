/** Content-addressed chains with a daemon that, as 2.35 and later, keeps realisations of resolved derivations only. */
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { sandboxScript } from "../../lab/expression.ts";
import { type Daemon, lab, type NixVersion } from "../../lab/lab.ts";
import { RawClient } from "../../lab/raw-client.ts";
import { resolvedOnly } from "../../lab/resolved-only.ts";
import { StandIn } from "../../lab/stand-in.ts";
import { parseDerivation } from "../../src/store/derivation.ts";
import { resolve } from "../../src/store/resolution.ts";

const config = `
[upstream]
socket = "/run/stand-in.sock"
[profiles.floating]
extends = "build"
content_addressed = true
`;
const ca = "extra-experimental-features = ca-derivations nix-command";
const floating = {
  builder: '"/bin/sh"',
  __contentAddressed: "true",
  outputHashMode: '"recursive"',
  outputHashAlgo: '"sha256"',
};

/** `first` and `second` are content-addressed, `last` is an ordinary derivation that needs `second`. */
function chain(mark: string): string {
  const first = sandboxScript(`echo ${mark} > $out`, { name: "ca-a", attributes: floating });
  const second = sandboxScript('echo "$first" > $out; cat $first >> $out', {
    name: "ca-b",
    attributes: { ...floating, first },
  });
  return sandboxScript('echo "$second" > $out', {
    name: "last",
    attributes: { builder: '"/bin/sh"', second },
  });
}

describe.each(lab.versions.filter((version) => version === "2.34"))(
  "realisations of resolved derivations only [daemon %s]",
  (version) => {
    let daemon: Daemon;
    let standIn: StandIn;
    let broker: TestBroker;
    beforeAll(async () => {
      daemon = await lab.start(version, { config: "experimental-features = ca-derivations nix-command\n" });
      standIn = await StandIn.start(
        daemon.hostPath("/run/stand-in.sock"),
        daemon.socket,
        resolvedOnly(daemon),
      );
      broker = await startBroker(daemon, { config, profile: "floating" });
    });
    afterAll(async () => {
      await broker?.stop();
      await standIn?.stop();
      await daemon?.stop();
    });

    const run = async (client: NixVersion, socket: string, script: string, expression: string) => {
      const { code, stdout, stderr } = await daemon.run(["sh", "-ec", `cat > chain.nix; ${script}`], {
        user: "alice",
        client,
        cwd: "/tmp",
        env: { HOME: "/home/alice", NIX_REMOTE: `unix://${socket}`, NIX_CONFIG: ca },
        input: expression,
      });
      expect({ code, stderr }).toEqual({ code: 0, stderr });
      return stdout.trim().split("\n");
    };
    const beside = "/nix/var/nix/daemon-socket/socket";
    const named = (name: string): string[] =>
      readdirSync(daemon.hostPath("/nix/store"))
        .filter((base) => base.endsWith(`-${name}`))
        .map((base) => `/nix/store/${base}`);
    const textOf = (path: string): string => readFileSync(daemon.hostPath(path), "latin1");

    test.each(lab.versions.filter((client) => client !== "2.3"))(
      "a client of %s builds each link",
      async (client) => {
        const [second, last] = await run(
          client,
          broker.socket,
          "nix-build --no-out-link chain.nix -A second; nix-build --no-out-link chain.nix",
          chain(`client-${client}`),
        );
        expect(textOf(second!)).toMatch(new RegExp(`-ca-a\nclient-${client}\n$`));
        expect(textOf(last!)).toBe(`${second}\n`);
        const failed = (await broker.audit("--verdict", "deny")).map(({ reason }) => reason);
        expect(failed).toEqual([]);
      },
    );

    test("what a derivation resolves to is found as Nix itself finds it", async () => {
      await run(version, broker.socket, "nix-build --no-out-link chain.nix", chain("as Nix"));
      const links = named("ca-b.drv").filter(
        (path) => parseDerivation(Buffer.from(textOf(path), "latin1")).inputDrvs.size,
      );
      expect(links.length).toBeGreaterThan(0);
      for (const path of links) {
        const text = textOf(path);
        const { inputDrvs, inputSrcs } = parseDerivation(Buffer.from(text, "latin1"));
        const real = await RawClient.connect(daemon.socket);
        const inputs = new Map<string, Map<string, string>>();
        for (const input of inputDrvs.keys())
          inputs.set(input, await real.must("QueryDerivationOutputMap", { path: input }));
        real.close();
        expect(named("ca-b.drv")).toContain(resolve(path, text, inputSrcs, inputs).path);
      }
    });

    test("G1: a client is told what its own derivations resolve to, and nothing of those that it does not have", async () => {
      const names = { features: ["realisation-with-path-not-hash"] } as const;
      const before = new Set(named("ca-b.drv"));
      await run(version, beside, "nix-build --no-out-link chain.nix -A second", chain("strangers"));
      const resolved = named("ca-b.drv").find(
        (path) =>
          !before.has(path) && parseDerivation(Buffer.from(textOf(path), "latin1")).inputDrvs.size === 0,
      )!;
      const output = { derivation: resolved, output: "out" };
      const direct = await RawClient.connect(daemon.hostPath("/run/stand-in.sock"), names);
      const told = (await direct.must("QueryRealisation", { output })) as { path: string };
      direct.close();
      expect(told.path).toMatch(/-ca-b$/);

      const second = await startBroker(daemon, { config, profile: "floating" });
      const client = await RawClient.connect(second.hostSocket, names);
      // It has the contents, and even a derivation of that name.
      expect((await client.addText("ca-b.drv", "not a derivation")).error).toBeDefined();
      expect(await client.must("QueryRealisation", { output })).toBeUndefined();
      await run(version, second.socket, "nix-build --no-out-link chain.nix -A second", chain("its own"));
      expect(await client.must("QueryRealisation", { output })).toBeUndefined();
      await run(version, second.socket, "nix-build --no-out-link chain.nix -A second", chain("strangers"));
      expect(await client.must("QueryRealisation", { output })).toEqual({ path: told.path, signatures: [] });
      client.close();
      await second.stop();
    });
  },
);
