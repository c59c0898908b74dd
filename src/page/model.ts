/** What the page knows: records in the order of the chain, each once, and the sandboxes and builds that they tell of. */
import { hasFailed } from "../audit/failures.ts";
import type { RecordJson } from "../audit/json-line.ts";
import type { SandboxSummary } from "../service/control/messages.ts";
import { derivationName, usageText } from "./text.ts";

export interface Build {
  readonly derivation: string;
  /** Milliseconds since the epoch. */
  readonly started: number;
  /** Milliseconds; undefined while it runs. */
  took: number | undefined;
  state: "running" | "done" | "failed";
  readonly intent: number;
}

export interface Sandbox {
  readonly id: string;
  /** The derivation of the outer build. */
  outer: string | undefined;
  /** The path of its static socket. */
  socket: string | undefined;
  /** The sandbox that asked for its build. */
  parent: string | undefined;
  profile: string;
  began: number;
  ended: number | undefined;
  /** What it uses of its quota, as told last. */
  usage: string | undefined;
  /** Why it ended. */
  reason: string | undefined;
  denied: number;
  readonly builds: Build[];
}

const MOST_RECORDS = 20_000;
const MOST_DENIALS = 5000;
const MOST_ENDED = 200;
const BUILD_OPERATIONS = new Set(["BuildPaths", "BuildPathsWithResults"]);

export class Model {
  records: RecordJson[] = [];
  denials: RecordJson[] = [];
  readonly sandboxes = new Map<string, Sandbox>();
  /** The place in the chain of the newest record; 0 for none. */
  last = 0;
  /** The builds that run, by the intent to ask for them. */
  private readonly running = new Map<number, Build[]>();

  reset(): void {
    this.records = [];
    this.denials = [];
    this.sandboxes.clear();
    this.running.clear();
    this.last = 0;
  }

  /** Records from before the first: they tell of sandboxes, builds and denials only. */
  learn(records: readonly RecordJson[]): void {
    for (const record of records) {
      if (record.verdict === "deny") this.denials.push(record);
      this.note(record);
    }
  }

  /** @returns those that are new */
  add(records: readonly RecordJson[]): RecordJson[] {
    const fresh = records.filter((record) => record.seq > this.last);
    for (const record of fresh) {
      this.last = record.seq;
      this.records.push(record);
      if (record.verdict === "deny") this.denials.push(record);
      this.note(record);
    }
    if (this.records.length > MOST_RECORDS * 1.2) this.records = this.records.slice(-MOST_RECORDS);
    if (this.denials.length > MOST_DENIALS * 1.2) this.denials = this.denials.slice(-MOST_DENIALS);
    this.forget();
    return fresh;
  }

  /** Takes the sandboxes that are open from the service's own list. */
  live(open: readonly SandboxSummary[]): void {
    for (const told of open) {
      const sandbox = this.sandbox(told.id);
      sandbox.outer = told.derivation ?? undefined;
      sandbox.socket = told.socket ?? undefined;
      sandbox.parent = told.parent ?? undefined;
      sandbox.profile = told.profile;
      sandbox.began = Date.parse(told.since);
      sandbox.ended = undefined;
      sandbox.usage = usageText(told);
    }
    const ids = new Set(open.map(({ id }) => id));
    for (const sandbox of this.sandboxes.values()) if (!ids.has(sandbox.id)) sandbox.ended ??= Date.now();
  }

  private sandbox(id: string): Sandbox {
    let sandbox = this.sandboxes.get(id);
    if (sandbox === undefined) {
      sandbox = {
        id,
        outer: undefined,
        socket: undefined,
        parent: undefined,
        profile: "",
        began: Date.now(),
        ended: undefined,
        usage: undefined,
        reason: undefined,
        denied: 0,
        builds: [],
      };
      this.sandboxes.set(id, sandbox);
    }
    return sandbox;
  }

  private note(record: RecordJson): void {
    if (record.sandbox === undefined) return;
    const known = this.sandboxes.has(record.sandbox);
    const sandbox = this.sandbox(record.sandbox);
    const time = Date.parse(record.time);
    if (!known) sandbox.began = time;
    sandbox.outer ??= record.outer;
    if (record.kind === "sandbox") noteSandbox(sandbox, record, time);
    else if (record.kind === "build") this.noteBuild(sandbox, record, time);
    else if (record.kind === "intent") this.noteIntent(sandbox, record, time);
    else if (record.kind === "request") {
      if (record.verdict === "deny") sandbox.denied += record.count;
      if (record.intent !== undefined) this.finish(record.intent, time + (record.durationUs ?? 0) / 1000);
    }
  }

  private noteIntent(sandbox: Sandbox, record: RecordJson, time: number): void {
    if (!BUILD_OPERATIONS.has(record.op)) return;
    const builds = record.subjects.map(
      (subject): Build => ({
        derivation: subject.replace(/[!^].*$/, ""),
        started: time,
        took: undefined,
        state: "running",
        intent: record.seq,
      }),
    );
    sandbox.builds.push(...builds);
    this.running.set(record.seq, builds);
  }

  private noteBuild(sandbox: Sandbox, record: RecordJson, time: number): void {
    const derivation = text(record.detail?.derivation) ?? record.subjects[0] ?? "";
    const intent = typeof record.detail?.request === "number" ? record.detail.request : 0;
    let build = this.running.get(intent)?.find((each) => each.derivation === derivation);
    if (build === undefined) {
      build = { derivation, started: time, took: 0, state: "done", intent };
      sandbox.builds.push(build);
    }
    build.took = (record.durationUs ?? 0) / 1000;
    build.state = hasFailed(record) ? "failed" : "done";
  }

  /** The request is over, and with it its builds. */
  private finish(intent: number, time: number): void {
    for (const build of this.running.get(intent) ?? []) {
      if (build.state !== "running") continue;
      build.state = "failed";
      build.took = time - build.started;
    }
    this.running.delete(intent);
  }

  /** Of sandboxes that ended, only the newest are kept. */
  private forget(): void {
    const ended = [...this.sandboxes.values()].filter((sandbox) => sandbox.ended !== undefined);
    if (ended.length <= MOST_ENDED * 1.2) return;
    ended.sort((a, b) => (a.ended ?? 0) - (b.ended ?? 0));
    for (const { id } of ended.slice(0, ended.length - MOST_ENDED)) this.sandboxes.delete(id);
  }
}

function noteSandbox(sandbox: Sandbox, record: RecordJson, time: number): void {
  sandbox.socket ??= text(record.detail?.socket);
  if (record.op === "begin") {
    sandbox.began = time;
    sandbox.parent = text(record.detail?.parent);
    sandbox.profile = text(record.detail?.profile) ?? "";
  } else if (record.op === "end") {
    sandbox.ended = time;
    sandbox.reason = record.reason?.replace(/^this sandbox has ended: /, "");
  }
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** The outer build's name, or where the socket is. */
export function sandboxName({ outer, socket, id }: Pick<Sandbox, "outer" | "socket" | "id">): string {
  if (outer !== undefined) return derivationName(outer);
  return socket === undefined ? id : socket.split("/").slice(-2).join("/");
}
