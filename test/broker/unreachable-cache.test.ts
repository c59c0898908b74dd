/** A daemon whose cache cannot be reached, as on a machine without network: it tries several times, and each try takes time. */
import { createServer, type Server } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { sandboxScript } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";

// 2.3 itself tries such a cache for minutes.
const versions = lab.versions.filter((version) => version !== "2.3");

describe.each(versions)("a cache that cannot be reached [daemon %s]", (version) => {
  let cache: Server;
  let daemon: Daemon;
  let jail: TestBroker;
  let tries = 0;

  beforeAll(async () => {
    cache = createServer((socket) => {
      tries += 1;
      socket.on("error", () => undefined).destroy();
    });
    await new Promise<void>((listening) => cache.listen(0, "127.0.0.1", listening));
    const address = cache.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    daemon = await lab.start(version, {
      config: `substituters = http://127.0.0.1:${address.port}\ndownload-attempts = 2\n`,
    });
    jail = await startBroker(daemon, { profile: "agent", view: "store" });
  });
  afterAll(async () => {
    await jail?.stop();
    await daemon?.stop();
    cache?.close();
  });

  const build = async (name: string, remote: string) => {
    const before = tries;
    const { code, stderr } = await daemon.run(
      ["nix-build", "--no-out-link", "-E", sandboxScript("echo built > $out", { name })],
      { user: "alice", env: { NIX_REMOTE: remote } },
    );
    return { code, stderr, tries: tries - before };
  };

  test("is tried as often as without nix-broker, and the client is told what takes so long", async () => {
    const outside = await build("outside", "daemon");
    expect(outside).toMatchObject({ code: 0 });
    expect(outside.tries).toBeGreaterThan(0);

    const first = await build("first", `unix://${jail.socket}`);
    expect(first).toMatchObject({ code: 0, tries: outside.tries });
    expect(first.stderr).toContain("the nix-daemon cannot reach one of its caches");
    expect(first.stderr).not.toContain("127.0.0.1");
  });
});
