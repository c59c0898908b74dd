/** docs/dashboards/: what Prometheus' own tool says, and that every metric named there is one that is served. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { lab } from "../../lab/lab.ts";
import { Metrics } from "../../src/service/metrics.ts";

const folder = join(import.meta.dirname, "../../docs/dashboards");
const dashboard = readFileSync(join(folder, "grafana.json"), "utf8");
const alerts = readFileSync(join(folder, "alerts.yml"), "utf8");

test("promtool accepts the alert rules, and they fire when they should", async () => {
  const promtool = await lab.tool("promtool", "prometheus");
  for (const args of [
    ["check", "rules", "alerts.yml"],
    ["test", "rules", "alerts.test.yml"],
  ]) {
    const { status, stdout, stderr } = spawnSync(promtool, args, { cwd: folder, encoding: "utf8" });
    expect({ status, said: stdout + stderr }).toMatchObject({
      status: 0,
      said: expect.stringContaining("SUCCESS"),
    });
  }
});

test("promtool finds nothing to say of names, units and helps", async () => {
  const promtool = await lab.tool("promtool", "prometheus");
  // Those of prom-client about the process are not ours to name.
  const ours = (await servedMetrics()).split("\n").filter((line) => /^(# \w+ )?nix_broker_/.test(line));
  expect(ours.length).toBeGreaterThan(40);
  const input = `${ours.join("\n")}\n`;
  const { status, stdout, stderr } = spawnSync(promtool, ["check", "metrics"], { input, encoding: "utf8" });
  expect({ status, said: stdout + stderr }).toEqual({ status: 0, said: "" });
});

test("the page says of each alert what to do", () => {
  const page = readFileSync(join(folder, "README.md"), "utf8");
  const names = [...alerts.matchAll(/- alert: (\w+)/g)].map(([, name = ""]) => name);
  expect(names.length).toBeGreaterThan(5);
  expect(names.filter((name) => !page.includes(`| ${name} |`))).toEqual([]);
});

interface Panel {
  readonly title: string;
  readonly targets: readonly { readonly expr: string }[];
}

test("promtool can read every expression of the dashboard", async () => {
  const promtool = await lab.tool("promtool", "prometheus");
  const { panels } = JSON.parse(dashboard) as { panels: readonly Panel[] };
  const expressions = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
  expect(expressions.length).toBeGreaterThan(20);
  // As recording rules, with Grafana's variables put in.
  const rules = expressions.map(
    (expr, index) =>
      `      - record: panel_${index}\n        expr: ${JSON.stringify(expr.replaceAll("$__rate_interval", "5m").replaceAll("$job", "nix-broker"))}\n`,
  );
  const scratch = mkdtempSync(join(tmpdir(), "nix-broker-promtool-"));
  const file = join(scratch, "dashboard.yml");
  writeFileSync(file, `groups:\n  - name: dashboard\n    rules:\n${rules.join("")}`);
  const { status, stderr } = spawnSync(promtool, ["check", "rules", file], { encoding: "utf8" });
  rmSync(scratch, { recursive: true });
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
});

/** After a request, so that nothing is left out for want of a sample. */
async function servedMetrics(): Promise<string> {
  const metrics = new Metrics(
    {
      sandboxes: () => new Map(),
      connections: () => 0,
      pooledUpstreams: () => 0,
      innerBuilds: () => 0,
      linkerRequests: () => 0,
      memory: () => ({ held: 0, size: 1, waiting: 0 }),
      audit: () => ({ healthy: true, pending: 0, lagMs: 0, lost: 0, head: { seq: 0 } }),
    },
    "0",
  );
  metrics.request("IsValidPath", "answer", 0.001, 1, 1);
  return metrics.text();
}

test("every metric that they name is served", async () => {
  const text = await servedMetrics();
  const served = new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map((match) => match[1] ?? ""));
  const named = new Set((dashboard + alerts).match(/\b(?:nix_broker|process|nodejs)_[a-z0-9_]+/g));
  expect(named.size).toBeGreaterThan(15);
  const missing = [...named].filter((name) => !served.has(name) && !served.has(name.replace(/_bucket$/, "")));
  expect(missing).toEqual([]);
});
