/** What `status` and `sandboxes` print for people, and what is counted for it. */
import { expect, test } from "vitest";
import { detailsText, sandboxTable } from "../../src/cli/sandboxes.ts";
import { statusText } from "../../src/cli/status.ts";
import type { Sandbox } from "../../src/sandbox/sandbox.ts";
import type { SandboxDetails, StatusReport } from "../../src/service/control/messages.ts";
import { ControlTally } from "../../src/service/control/tally.ts";
import { type Counters, noCounters } from "../../src/service/counters.ts";

const details: SandboxDetails = {
  id: "abcdefghijklmnopqrstuvwxyz012345",
  derivation: `/nix/store/${"0".repeat(32)}-evil\u001b[2J\u202e.drv`,
  socket: null,
  jail: null,
  profile: "build",
  parent: "zyxwvutsrqponmlkjihgfedcba012345",
  depth: 2,
  uid: 30_001,
  connections: 3,
  builds: { running: 1, total: 7 },
  viewPaths: 41,
  bytesAdded: 2048,
  since: new Date(Date.now() - 65_000).toISOString(),
  endsAt: null,
  limits: { concurrentBuilds: 16, builds: null, bytesAdded: 1024 ** 3 },
  refused: null,
  viewStart: { total: 2, paths: ["/nix/store/a", "/nix/store/b"] },
  gained: { total: 9, paths: ["/nix/store/c"] },
  innerBuilds: [
    {
      derivation: `/nix/store/${"1".repeat(32)}-inner.drv`,
      ok: false,
      outputs: {},
      seconds: 2.5,
      endedAt: "2026-01-01T00:00:00.000Z",
    },
  ],
};

test("a name that a client chose cannot move the cursor, nor turn the text around", () => {
  for (const text of [sandboxTable([details]), detailsText(details)]) {
    expect(text).toContain("evil\\x1b[2J\\u{202e}");
    expect(text).not.toMatch(/[\u001b\u202e]/);
  }
});

test("the columns of the table stand under their headings", () => {
  const [heading, row] = sandboxTable([
    { ...details, derivation: `/nix/store/${"0".repeat(32)}-x.drv` },
  ]).split("\n");
  const at = (name: string): string => row!.slice(heading!.indexOf(name)).split(/ {2}/)[0]!;
  expect(
    ["ID", "BUILD", "PROFILE", "DEPTH", "PARENT", "UID", "CONNS", "BUILDS", "VIEW", "ADDED", "SINCE"].map(at),
  ).toEqual([
    ...["abcdefghijkl", "x", "build", "2", "zyxwvutsrqpo", "30001", "3", "1/7", "41", "2.0 KiB", "1 min 5 s"],
  ]);
});

test("a page tells how much it leaves out, and which builds failed", () => {
  const page = detailsText(details);
  expect(page).toContain("gained since (9)\n  /nix/store/c\n  and 8 more\n");
  expect(page).toContain("view at the start (2)\n  /nix/store/a\n  /nix/store/b\n");
  expect(page).toMatch(/^ {2}FAILED +2\.5 s +inner$/m);
  expect(detailsText({ ...details, viewStart: null })).toContain("view at the start: the whole store");
});

const report: StatusReport = {
  service: {
    version: "0.1.0",
    pid: 5,
    uid: 6,
    startedAt: "",
    uptimeSeconds: 3700,
    configFile: null,
    reloadError: null,
  },
  upstream: { at: "/socket", error: "it is away", protocol: null, nixVersion: null },
  pool: { idle: 0, size: 4 },
  sandboxes: { builds: 1, static: 2 },
  sockets: [
    { path: "/a", profile: "build", error: null },
    { path: "/b", profile: "build", error: "/b is taken" },
  ],
  connections: 3,
  memory: { held: 3 * 1024 * 1024, size: 256 * 1024 * 1024, waiting: 2 },
  requests: { forward: 1, answer: 2, deny: 3 },
  innerBuilds: { running: 0, succeeded: 0, failed: 1 },
  audit: { folder: "/audit", error: "disk full", records: 10, pending: 4, lagSeconds: 12, lost: 0 },
  linker: { error: "it is gone", needed: true, sandboxes: null, queued: null, linked: null, waiting: 2 },
  limitsHit: { connections: 5 },
};

test("status puts what is wrong first in its line", () => {
  const lines = statusText(report).split("\n");
  const line = (topic: string): string | undefined => lines.find((text) => text.startsWith(`${topic} `));
  expect(line("service")).toMatch(/nix-broker 0\.1\.0, up 1 h 1 min, pid 5, uid 6$/);
  expect(line("configuration")).toMatch(/none, the defaults apply$/);
  expect(line("upstream")).toMatch(/NOT OK: it is away; never reached; \/socket$/);
  expect(line("static sockets")).toMatch(/NOT OK: \/b is taken; 1 open$/);
  expect(line("audit")).toMatch(
    /NOT OK: disk full; 10 records, 4 not yet written \(12 s behind\), 0 lost; \/audit$/,
  );
  expect(line("linker")).toMatch(
    /NOT OK: it is gone \(builds that opt in are refused\); 2 requests are waiting for it$/,
  );
  expect(line("memory")).toMatch(/3\.0 MiB of 256 MiB held by requests, 2 waiting for some$/);
  expect(line("limits hit")).toMatch(/connections 5×$/);
});

test("what is kept of a sandbox's builds, however many outputs they have, fits into a message with all else", () => {
  const longest = (name: string): string => `/nix/store/${"1".repeat(32)}-${name.padStart(211, "x")}`;
  const outputs = new Map(
    Array.from({ length: 2000 }, (_, i) => [`${i}`.padStart(200, "o"), longest(`${i}`)]),
  );
  const sandbox = { id: "s" } as Sandbox;
  const tally = new ControlTally(noCounters);
  for (let i = 0; i < 300; i++)
    tally.buildEnded({
      asker: { sandbox, connection: 1, uid: 1, pid: 1, protocol: "1.38" },
      derivation: longest(".drv"),
      outputs,
      ok: true,
      durationMs: 1,
      intent: 1,
    });
  const innerBuilds = tally.buildsOf(sandbox);
  expect(innerBuilds).toHaveLength(200);
  const list = { total: 5000, paths: Array<string>(5000).fill(longest("")) };
  const message = { ...details, viewStart: list, gained: list, innerBuilds };
  expect(JSON.stringify(message).length).toBeLessThan(4 * 1024 * 1024 - 1024);
});

test("status understands a service of an earlier version, and says that it is one", () => {
  const { sockets: _, ...old } = {
    ...report,
    service: { ...report.service, version: "0.0.9", reloadError: undefined },
    linker: { ...report.linker, needed: undefined },
  };
  const text = statusText(old as unknown as StatusReport);
  expect(text).toMatch(/^service +nix-broker 0\.0\.9 \(this program is .*: restart the service\), up/m);
  expect(text).toMatch(/^configuration +none, the defaults apply$/m);
  expect(text).toMatch(/^linker +NOT OK: it is gone/m);
});

test("a page understands a service of an earlier version", () => {
  const { jail: _jail, endsAt: _endsAt, limits: _limits, ...old } = details;
  expect(detailsText(old as unknown as SandboxDetails)).toMatch(
    /^build requests +1 running, 7 in total \(family\)$/m,
  );
});

test("status tells a reload that failed, and that nobody misses a linker where no build needs one", () => {
  const text = statusText({
    ...report,
    service: { ...report.service, configFile: "/etc/c.toml", reloadError: "line 3: no" },
    linker: { ...report.linker, needed: false },
  });
  expect(text).toMatch(/^configuration +NOT OK: not taken up, the one before is in force: line 3: no$/m);
  expect(text).toMatch(/^linker +none; only builds that opt in need it$/m);
});

test("the tally counts, and tells the metrics everything", () => {
  const told: unknown[][] = [];
  const next: Counters = {
    ...noCounters,
    request: (...all) => void told.push(all),
    build: (...all) => void told.push(all),
    limitHit: (...all) => void told.push(all),
    waitRefused: (...all) => void told.push(all),
    logLinesDropped: (...all) => void told.push(all),
  };
  const tally = new ControlTally(next);
  tally.request("IsValidPath", "answer", 1, 2, 3);
  tally.build(false, 4);
  tally.build(true, 5);
  tally.limitHit("depth");
  tally.limitHit("depth");
  tally.waitRefused("cycle");
  tally.logLinesDropped(6);
  expect(tally.requests).toEqual({ forward: 0, answer: 1, deny: 0 });
  expect(tally.builds).toEqual({ succeeded: 1, failed: 1 });
  expect(tally.limitsHit).toEqual({ depth: 2 });
  expect(told).toEqual([
    ["IsValidPath", "answer", 1, 2, 3],
    [false, 4],
    [true, 5],
    ["depth"],
    ["depth"],
    ["cycle"],
    [6],
  ]);
});
