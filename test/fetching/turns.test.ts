/** Sandboxes whose servers drip, on a real daemon: they do not keep others from fetching, and lose nothing but time. */
import { createHash } from "node:crypto";
import type { ServerResponse } from "node:http";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startBroker, type TestBroker } from "../../lab/broker.ts";
import { nixString, nixSystem } from "../../lab/expression.ts";
import { type Daemon, lab } from "../../lab/lab.ts";
import { until } from "../../lab/parts.ts";
import { startServer, type TestServer } from "./server.ts";

const CONTENTS = "x".repeat(1024 * 1024);
/** More than the least that a fetcher puts up with. */
const DRIP_BYTES = 300;
const DRIP_MS = 100;
const SECOND = "/var/lib/nix-broker/second";

function file(url: string, name: string): string {
  const outputHash = createHash("sha256").update(CONTENTS).digest("hex");
  const attributes = { name, urls: url, outputHash, outputHashAlgo: "sha256", outputHashMode: "flat" };
  const lines = Object.entries({ ...attributes, system: nixSystem, builder: "/bin/sh" }).map(
    ([key, value]) => `${key} = ${nixString(value)};`,
  );
  return `(derivation { args = [ "-c" "exit 1" ]; ${lines.join(" ")} })`;
}

describe.each(lab.versions.slice(-1))("fetching in turns [daemon %s]", (version) => {
  let daemon: Daemon;
  let server: TestServer;
  let broker: TestBroker;
  const dripping = new Set<() => void>();
  let isOver = false;

  beforeAll(async () => {
    [daemon, server] = await Promise.all([lab.start(version), startServer()]);
    const sockets = [1, 2].map(
      (i) =>
        `[[listen]]\npath = "${SECOND}-${i}"\nprofile = "fetching"\nview = "empty"\nallow_uids = ["*"]\n`,
    );
    const config = `${sockets.join("")}
[fetch]
private_hosts = ["127.0.0.1"]
[profiles.fetching]
extends = "pure"
fixed_outputs = ["${server.url}/*"]
`;
    broker = await startBroker(daemon, { profile: "fetching", config });
    for (const sandbox of [1, 2])
      for (const i of [1, 2, 3, 4]) server.serve(`/drip-${sandbox}-${i}`, (_, response) => drip(response));
    server.serve("/quick", CONTENTS);
  });
  afterAll(async () => {
    await broker?.stop();
    await Promise.all([daemon?.stop(), server?.stop()]);
  });

  function drip(response: ServerResponse): void {
    let sent = 0;
    const drops = setInterval(() => {
      response.write(CONTENTS.slice(0, DRIP_BYTES));
      sent += DRIP_BYTES;
    }, DRIP_MS);
    const finish = (): void => {
      clearInterval(drops);
      dripping.delete(finish);
      response.end(CONTENTS.slice(sent));
    };
    response.on("close", () => {
      clearInterval(drops);
      dripping.delete(finish);
    });
    if (isOver) finish();
    else dripping.add(finish);
  }

  const build = (socket: string, files: readonly string[]) =>
    daemon.run(["nix-build", "--no-out-link", "-E", `[ ${files.join(" ")} ]`], {
      user: "alice",
      env: { NIX_REMOTE: `unix://${socket}` },
    });

  test("G8: two sandboxes that take all fetchers, and whose servers drip, give one to a third", async () => {
    const hostile = [1, 2].map((sandbox) =>
      build(
        `${SECOND}-${sandbox}`,
        [1, 2, 3, 4].map((i) => file(`${server.url}/drip-${sandbox}-${i}`, `drip-${sandbox}-${i}`)),
      ),
    );
    await until(() => dripping.size === 8);
    const quick = await build(broker.socket, [file(`${server.url}/quick`, "quick")]);
    expect(quick.code, quick.stderr).toBe(0);
    // The one that made room is fetched again, and they all come to an end.
    isOver = true;
    for (const finish of dripping) finish();
    const ended = await Promise.all(hostile);
    for (const { code, stderr } of ended) expect(code, stderr).toBe(0);
    expect(ended.map(({ stderr }) => stderr).join("")).toMatch(
      /others wait, so '.*\/drip-.*' is fetched again/,
    );
    const drips = server.asked.filter(({ path }) => path.startsWith("/drip-"));
    // More than one has to make room where the third takes longer than it is between two looks.
    expect(drips.length).toBeGreaterThan(8);
    const rows = await broker.audit("--kind", "fetch");
    expect(rows.filter(({ reason }) => reason !== undefined)).toEqual([]);
    expect(rows).toHaveLength(9);
  });
});
