/** Fetchers read what strangers send: one that was taken over must do no more than a server could. */
import { once } from "node:events";
import { chmodSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { nixSystem } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";

const version = lab.versions.at(-1) ?? "2.34";
const socket = "/var/lib/nix-broker/hostile-fetcher";
const asked = ["https://example.org/file"];
const failed = { ok: false, asked, attempts: [{ url: "https://example.org/file", reason: "gone" }] };

describe(`a fetcher that was taken over [daemon ${version}]`, () => {
  let daemon: Daemon;
  let broker: TestBroker;
  let server: Server;
  let says = "";

  beforeAll(async () => {
    daemon = await lab.start(version);
    await daemon.run(["mkdir", "-p", "/var/lib/nix-broker"]);
    server = createServer((connection) => {
      connection.on("error", () => undefined);
      connection.once("data", () => connection.end(says));
    });
    server.listen(daemon.hostPath(socket));
    await once(server, "listening");
    chmodSync(daemon.hostPath(socket), 0o666);
    broker = await startBroker(daemon, {
      profile: "fetching",
      config: `[profiles.fetching]\nextends = "pure"\nfixed_outputs = ["https://example.org/*"]\n`,
      env: { NIX_BROKER_FETCH_SOCKET: socket },
    });
  });
  afterAll(async () => {
    await broker?.stop();
    await daemon?.stop();
    server?.close();
  });

  test.each<[string, unknown, RegExp]>([
    ["nothing", "", /the process that fetches for nix-broker ended early/],
    ["no JSON", "x\n", /ended early/],
    ["null", null, /ended early/],
    ["no URLs", { ok: true, length: 1 }, /ended early/],
    ["URLs that are none", { ok: true, asked: [{}], length: 1 }, /ended early/],
    ["a negative length", { ok: true, asked, length: -1 }, /ended early/],
    ["no length", { ok: true, asked, length: null }, /ended early/],
    ["no attempts", { ok: false, asked }, /ended early/],
    ["attempts that are none", { ok: false, asked, attempts: [null] }, /ended early/],
    ["a hash that is none", { ...failed, got: "zz" }, /ended early/],
    ["a hash that is too short", { ...failed, got: "00" }, /could not be fetched: https:\S+: gone/],
    ["how far it is, as a text", `{"progress":"x"}\n${JSON.stringify(failed)}\n`, /ended early/],
    ["how far it is, and nothing else", '{"progress":1}\n{"progress":-1}\n', /ended early/],
    ["how far it is, again and again", `{"progress":1}\n`.repeat(50_000), /ended early/],
    ["less than it announces", { ok: true, asked, length: 100 }, /ended early/],
    ["nothing, as the contents", { ok: true, asked, length: 0 }, /does not have the hash/],
  ])("G8: who says %s fails that request alone", async (_, reply, words) => {
    says = typeof reply === "string" ? reply : `${JSON.stringify(reply)}\n`;
    const expression = `derivation {
      name = "fetched"; system = "${nixSystem}"; builder = "/bin/sh"; url = "https://example.org/file";
      outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "contents";
    }`;
    const { code, stderr } = await daemon.run(["nix-build", "--no-out-link", "-E", expression], {
      user: "alice",
      env: { NIX_REMOTE: `unix://${broker.socket}` },
    });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(words);
    expect(broker.process.exitCode).toBeNull();
    const [recorded] = (await broker.audit("--kind", "fetch")).slice(-1);
    expect(recorded?.subjects?.slice(2)).toEqual(asked);
  });
});
