/** The page over an audit of the test's own, without the rest of the service. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { program } from "../../lab/program.ts";
import type { AuditRecord } from "../../src/audit/record.ts";
import { AuditStore } from "../../src/audit/store.ts";
import type { SandboxSummary } from "../../src/service/control/messages.ts";
import { type FeedSources, WebFeed } from "../../src/service/web/feed.ts";
import { type HttpListener, serveHttp } from "../../src/service/web/http.ts";
import { webSite } from "../../src/service/web/web.ts";

export const TOKEN = "a-token/with+odd=characters";

export class Site {
  readonly folder = mkdtempSync(join(tmpdir(), "nix-broker-web-"));
  readonly requests = { forward: 0, answer: 0, deny: 0 };
  readonly builds = { running: 0, succeeded: 0, failed: 0 };
  sandboxes: SandboxSummary[] = [];
  readonly store: AuditStore;
  private feed: WebFeed | undefined;
  private listener: HttpListener | undefined;
  port = 0;

  constructor() {
    this.store = new AuditStore(join(this.folder, "audit"), {
      onWritten: (records) => this.feed?.push(records),
    });
  }

  get origin(): string {
    return `http://localhost:${this.port}`;
  }

  /** With the token, as it is given to people. */
  get address(): string {
    return `${this.origin}/#token=${encodeURIComponent(TOKEN)}`;
  }

  /** Listens, at the same port as before if there was one. */
  async start(options: Pick<FeedSources, "patienceMs"> = {}): Promise<void> {
    this.feed = new WebFeed({
      ...options,
      folder: this.store.folder,
      version: "0.0.0",
      head: () => this.store.head.seq,
      sandboxes: () => this.sandboxes,
      state: () => ({
        time: Date.now(),
        requests: { ...this.requests },
        builds: { ...this.builds },
        connections: 3,
        pool: 4,
        linker: 0,
        audit: { head: this.store.head.seq, lagMs: 0, error: null },
      }),
      log: pino({ enabled: false }),
    });
    this.listener = await serveHttp(
      { kind: "tcp", host: "127.0.0.1", port: this.port },
      webSite(
        TOKEN,
        this.feed,
        new Map([["/metrics", { handle: (_, response) => void response.end("") }]]),
        program.page,
      ),
      (error) => {
        throw error;
      },
    );
    if (this.listener.endpoint.kind === "tcp") this.port = this.listener.endpoint.port;
  }

  /** As when the service goes away: connections are cut. */
  async stop(): Promise<void> {
    this.feed?.close();
    await this.listener?.close();
  }

  record(record: Partial<AuditRecord>): void {
    const verdict = record.verdict ?? "answer";
    if ((record.kind ?? "request") === "request") this.requests[verdict]++;
    this.store.append({ kind: "request", op: "IsValidPath", time: Date.now() * 1000, ...record });
  }

  async close(): Promise<void> {
    await this.stop();
    this.store.close();
    rmSync(this.folder, { recursive: true });
  }
}

export function summary(id: string, facts: Partial<SandboxSummary> = {}): SandboxSummary {
  return {
    id,
    derivation: null,
    socket: null,
    jail: null,
    profile: "build",
    parent: null,
    depth: 1,
    uid: 30_001,
    connections: 1,
    builds: { running: 0, total: 0 },
    viewPaths: 10,
    bytesAdded: 0,
    since: new Date().toISOString(),
    endsAt: null,
    limits: { concurrentBuilds: 16, builds: null, bytesAdded: null },
    refused: null,
    ...facts,
  };
}
