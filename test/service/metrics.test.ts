import { expect, test } from "vitest";
import { type MetricSources, Metrics } from "../../src/service/metrics.ts";

function sources(): MetricSources {
  return {
    sandboxes: () =>
      new Map([
        ["build", 3],
        ["agent", 1],
      ]),
    connections: () => 7,
    pooledUpstreams: () => 2,
    innerBuilds: () => 5,
    linkerRequests: () => 6,
    memory: () => ({ held: 7, size: 8, waiting: 9 }),
    audit: () => ({ healthy: false, pending: 12, lagMs: 1500, lost: 4, head: { seq: 99 } }),
  };
}

/** Sample lines by name and labels. */
async function samples(metrics: Metrics): Promise<Map<string, number>> {
  const lines = (await metrics.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [
      line.slice(0, line.lastIndexOf(" ")),
      Number(line.slice(line.lastIndexOf(" ") + 1)),
    ]),
  );
}

test("requests are counted by operation and verdict, with their time and bytes", async () => {
  const metrics = new Metrics(sources(), "0.1.0");
  metrics.request("IsValidPath", "answer", 0.00005, 100, 16);
  metrics.request("IsValidPath", "answer", 0.002, 100, 16);
  metrics.request("CollectGarbage", "deny", 0.0001, 50, 80);
  const found = await samples(metrics);
  expect(found.get('nix_broker_requests_total{operation="IsValidPath",verdict="answer"}')).toBe(2);
  expect(found.get('nix_broker_requests_total{operation="CollectGarbage",verdict="deny"}')).toBe(1);
  expect(found.get('nix_broker_request_duration_seconds_count{operation="IsValidPath"}')).toBe(2);
  expect(found.get('nix_broker_request_duration_seconds_bucket{le="0.0001",operation="IsValidPath"}')).toBe(
    1,
  );
  expect(found.get("nix_broker_received_bytes_total")).toBe(250);
  expect(found.get("nix_broker_sent_bytes_total")).toBe(112);
});

test("a client's text never becomes a label", async () => {
  const metrics = new Metrics(sources(), "0.1.0");
  for (let i = 0; i < 100; i++) metrics.request(`evil-${i}`, "deny", 0, 0, 0);
  const text = await metrics.text();
  expect(text).not.toContain("evil");
  expect((await samples(metrics)).get('nix_broker_requests_total{operation="unknown",verdict="deny"}')).toBe(
    100,
  );
});

test("builds, limits, refused waits and dropped lines are counted, and stand at zero before", async () => {
  const metrics = new Metrics(sources(), "0.1.0");
  const before = await samples(metrics);
  expect(before.get('nix_broker_inner_builds_total{result="failure"}')).toBe(0);
  const limits = [...before.keys()].filter((name) => name.startsWith("nix_broker_limit_hits_total"));
  expect(limits.length).toBeGreaterThan(5);
  metrics.build(true, 2);
  metrics.build(false, 0.5);
  metrics.limitHit("connections");
  expect(before.get('nix_broker_refused_waits_total{reason="cycle"}')).toBe(0);
  metrics.waitRefused("cycle");
  metrics.logLinesDropped(17);
  const after = await samples(metrics);
  expect(after.get('nix_broker_inner_builds_total{result="failure"}')).toBe(1);
  expect(after.get("nix_broker_inner_build_duration_seconds_sum")).toBe(2.5);
  expect(after.get('nix_broker_limit_hits_total{limit="connections"}')).toBe(1);
  expect(after.get('nix_broker_refused_waits_total{reason="cycle"}')).toBe(1);
  expect(after.get('nix_broker_refused_waits_total{reason="build_users"}')).toBe(0);
  expect(after.get("nix_broker_dropped_log_lines_total")).toBe(17);
});

test("the state of the broker is read when asked", async () => {
  const found = await samples(new Metrics(sources(), "0.1.0"));
  expect(
    Object.fromEntries(
      [...found].filter(([name]) =>
        /^nix_broker_(sandboxes|connections|pooled|inner_builds$|linker|request_memory|requests_waiting|audit|build_info)/.test(
          name,
        ),
      ),
    ),
  ).toEqual({
    'nix_broker_build_info{version="0.1.0"}': 1,
    'nix_broker_sandboxes{profile="build"}': 3,
    'nix_broker_sandboxes{profile="agent"}': 1,
    nix_broker_connections: 7,
    nix_broker_pooled_upstream_connections: 2,
    nix_broker_inner_builds: 5,
    nix_broker_linker_requests: 6,
    nix_broker_request_memory_bytes: 7,
    nix_broker_request_memory_limit_bytes: 8,
    nix_broker_requests_waiting_for_memory: 9,
    nix_broker_audit_healthy: 0,
    nix_broker_audit_pending_records: 12,
    nix_broker_audit_lag_seconds: 1.5,
    nix_broker_audit_last_record: 99,
    nix_broker_audit_lost_records_total: 4,
  });
});

test("every metric of ours has a name and unit by Prometheus' conventions, and a help text", async () => {
  const metrics = new Metrics(sources(), "0.1.0");
  const text = await metrics.text();
  const types = [...text.matchAll(/^# TYPE (nix_broker_\w+) (\w+)$/gm)].map(
    ([, name, type]) => [name!, type!] as const,
  );
  expect(types.length).toBeGreaterThan(15);
  for (const [name, type] of types) {
    expect(text).toMatch(new RegExp(`^# HELP ${name} .+\\.$`, "m"));
    if (type === "counter") expect(name).toMatch(/_total$/);
    else expect(name).not.toMatch(/_total$/);
    expect(name).not.toMatch(/_(ms|milliseconds|us|kb|mb)(_|$)/);
  }
  expect(metrics.contentType).toMatch(/^text\/plain; version=0\.0\.4/);
});
