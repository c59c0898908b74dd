/**
 * The Prometheus metrics. Labels come from our own tables only, never from a client, so that their number is limited.
 */

import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { LimitName } from "../policy/limits.ts";
import { limitNames } from "../policy/limits.ts";
import type { Verdict } from "../policy/rules.ts";
import { operationNames } from "../protocol/operations.ts";
import type { MemoryBudget } from "../sandbox/memory-budget.ts";
import { WAIT_REASONS, type WaitReason } from "../sandbox/waits.ts";
import type { Counters } from "./counters.ts";

/** What is read when Prometheus asks. */
export interface MetricSources {
  /** How many sandboxes are open, by the name of their profile (names of the configuration). */
  sandboxes(): ReadonlyMap<string, number>;
  connections(): number;
  /** Upstream connections that wait for their first request. */
  pooledUpstreams(): number;
  /** Inner builds that upstream is working on. */
  innerBuilds(): number;
  /** Requests that the linker has not answered yet. */
  linkerRequests(): number;
  memory(): Pick<MemoryBudget, "held" | "size" | "waiting">;
  audit(): AuditState;
}

/** `AuditStore` has this form. */
export interface AuditState {
  readonly healthy: boolean;
  readonly pending: number;
  readonly lagMs: number;
  readonly lost: number;
  readonly head: { readonly seq: number };
}

/** From an answer out of the view (about 50 µs) to an inner build of an hour, in seconds. */
const REQUEST_BUCKETS = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 10, 100, 1000];
const BUILD_BUCKETS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000];

/** Requests that are not in the table: the greeting, and numbers that no operation has. */
const OTHER_OPERATIONS = ["handshake", "unknown"];
const OPERATIONS: ReadonlySet<string> = new Set([...operationNames, ...OTHER_OPERATIONS]);

interface RequestSeries {
  readonly count: Counter.Internal;
  readonly seconds: Histogram.Internal<"operation">;
}

/** The registry of one broker. */
export class Metrics implements Counters {
  private readonly registry = new Registry();
  private readonly requests: Counter<"operation" | "verdict">;
  private readonly requestSeconds: Histogram<"operation">;
  private readonly receivedBytes: Counter;
  private readonly sentBytes: Counter;
  private readonly builds: Counter<"result">;
  private readonly buildSeconds: Histogram;
  private readonly limitHits: Counter<"limit">;
  private readonly refusedWaits: Counter<"reason">;
  private readonly droppedLogLines: Counter;
  /** Looking up series by their labels is most of the cost of counting. */
  private readonly series = new Map<string, RequestSeries>();

  constructor(sources: MetricSources, version: string) {
    const registers = [this.registry];
    this.requests = new Counter({
      name: "nix_broker_requests_total",
      help: "Requests of clients, by operation and verdict.",
      labelNames: ["operation", "verdict"],
      registers,
    });
    this.requestSeconds = new Histogram({
      name: "nix_broker_request_duration_seconds",
      help: "Time from the first byte of a request to the last byte of its reply, by operation.",
      labelNames: ["operation"],
      buckets: REQUEST_BUCKETS,
      registers,
    });
    this.receivedBytes = new Counter({
      name: "nix_broker_received_bytes_total",
      help: "Bytes received from clients.",
      registers,
    });
    this.sentBytes = new Counter({
      name: "nix_broker_sent_bytes_total",
      help: "Bytes sent to clients.",
      registers,
    });
    this.builds = new Counter({
      name: "nix_broker_inner_builds_total",
      help: "Inner builds that ended, by result.",
      labelNames: ["result"],
      registers,
    });
    this.buildSeconds = new Histogram({
      name: "nix_broker_inner_build_duration_seconds",
      help: "How long inner builds took, as the broker saw it.",
      buckets: BUILD_BUCKETS,
      registers,
    });
    this.limitHits = new Counter({
      name: "nix_broker_limit_hits_total",
      help: "Requests that were denied because a limit was reached, by limit.",
      labelNames: ["limit"],
      registers,
    });
    this.refusedWaits = new Counter({
      name: "nix_broker_refused_waits_total",
      help: "Requests that were denied because they could wait forever, by reason.",
      labelNames: ["reason"],
      registers,
    });
    this.droppedLogLines = new Counter({
      name: "nix_broker_dropped_log_lines_total",
      help: "Log lines of inner builds that were dropped because their client did not read.",
      registers,
    });
    this.startAtZero();
    this.addGauges(sources, version);
    collectDefaultMetrics({ register: this.registry });
  }

  /** The Content-Type of `text()`. */
  get contentType(): string {
    return this.registry.contentType;
  }

  /** All metrics in Prometheus' text format. */
  text(): Promise<string> {
    return this.registry.metrics();
  }

  request(operation: string, verdict: Verdict, seconds: number, bytesIn: number, bytesOut: number): void {
    const series = this.seriesOf(operation, verdict);
    series.count.inc();
    series.seconds.observe(seconds);
    this.receivedBytes.inc(bytesIn);
    this.sentBytes.inc(bytesOut);
  }

  build(ok: boolean, seconds: number): void {
    this.builds.inc({ result: ok ? "success" : "failure" });
    this.buildSeconds.observe(seconds);
  }

  limitHit(limit: LimitName): void {
    this.limitHits.inc({ limit });
  }

  waitRefused(reason: WaitReason): void {
    this.refusedWaits.inc({ reason });
  }

  logLinesDropped(lines: number): void {
    this.droppedLogLines.inc(lines);
  }

  private seriesOf(operation: string, verdict: Verdict): RequestSeries {
    const key = `${operation}/${verdict}`;
    const known = this.series.get(key);
    if (known !== undefined) return known;
    // Whatever a caller passes, the number of labels stays limited.
    const label = OPERATIONS.has(operation) ? operation : "unknown";
    const series = {
      count: this.requests.labels(label, verdict),
      seconds: this.requestSeconds.labels(label),
    };
    if (label === operation) this.series.set(key, series);
    return series;
  }

  /** So that the first event shows as an increase. Operations are added when they are used: there are too many. */
  private startAtZero(): void {
    for (const result of ["success", "failure"]) this.builds.inc({ result }, 0);
    for (const limit of limitNames) this.limitHits.inc({ limit }, 0);
    for (const reason of WAIT_REASONS) this.refusedWaits.inc({ reason }, 0);
  }

  private addGauges(sources: MetricSources, version: string): void {
    const registers = [this.registry];
    const gauge = (name: string, help: string, read: () => number): void => {
      new Gauge({
        name,
        help,
        registers,
        collect() {
          this.set(read());
        },
      });
    };
    new Gauge({
      name: "nix_broker_build_info",
      help: "Always 1; the version is its label.",
      labelNames: ["version"],
      registers,
    }).set({ version }, 1);
    new Gauge({
      name: "nix_broker_sandboxes",
      help: "Open sandboxes, by profile.",
      labelNames: ["profile"],
      registers,
      collect() {
        this.reset();
        for (const [profile, count] of sources.sandboxes()) this.set({ profile }, count);
      },
    });
    gauge("nix_broker_connections", "Open connections of clients.", () => sources.connections());
    gauge("nix_broker_pooled_upstream_connections", "Upstream connections ready for a first request.", () =>
      sources.pooledUpstreams(),
    );
    gauge("nix_broker_inner_builds", "Inner builds that upstream is working on.", () =>
      sources.innerBuilds(),
    );
    gauge(
      "nix_broker_request_memory_bytes",
      "What requests hold of runtime.memory.",
      () => sources.memory().held,
    );
    gauge("nix_broker_request_memory_limit_bytes", "runtime.memory.", () => sources.memory().size);
    gauge(
      "nix_broker_requests_waiting_for_memory",
      "Requests that wait because runtime.memory is in use.",
      () => sources.memory().waiting,
    );
    gauge("nix_broker_linker_requests", "Requests that wait for the linker.", () => sources.linkerRequests());
    gauge(
      "nix_broker_audit_healthy",
      "1 while requests can be recorded, else 0 (and they are refused).",
      () => (sources.audit().healthy ? 1 : 0),
    );
    gauge(
      "nix_broker_audit_pending_records",
      "Records that wait to be written.",
      () => sources.audit().pending,
    );
    gauge("nix_broker_audit_lag_seconds", "How long the oldest record has waited to be written.", () => {
      return sources.audit().lagMs / 1000;
    });
    gauge("nix_broker_audit_last_record", "The number of the newest record in the audit.", () => {
      return sources.audit().head.seq;
    });
    new Counter({
      name: "nix_broker_audit_lost_records_total",
      help: "Records that could be neither written nor kept.",
      registers,
      collect() {
        this.reset();
        this.inc(sources.audit().lost);
      },
    });
  }
}
