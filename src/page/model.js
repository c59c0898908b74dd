// @ts-check
/** What the page knows: records in the order of the chain, each once, and the sandboxes and builds that they tell of. */

/**
 * @typedef {object} AuditRecord
 * @property {number} seq
 * @property {string} time
 * @property {"request" | "intent" | "build" | "sandbox" | "service"} kind
 * @property {string} op
 * @property {string} [sandbox]
 * @property {string} [outer]
 * @property {number} [connection]
 * @property {number} [uid]
 * @property {number} [pid]
 * @property {string} [protocol]
 * @property {"forward" | "answer" | "deny"} [verdict]
 * @property {string} [reason]
 * @property {string[]} subjects
 * @property {number} [durationUs]
 * @property {number} [bytesIn]
 * @property {number} [bytesOut]
 * @property {string} [upstreamError]
 * @property {number} count
 * @property {number} [intent]
 * @property {Record<string, any>} [detail]
 * @property {string} hash
 */

/**
 * @typedef {object} Build
 * @property {string} derivation
 * @property {number} started milliseconds since the epoch
 * @property {number | undefined} took milliseconds; undefined while it runs
 * @property {"running" | "done" | "failed"} state
 * @property {number} intent
 */

/**
 * @typedef {object} Sandbox
 * @property {string} id
 * @property {string | undefined} outer
 * @property {string | undefined} socket
 * @property {string | undefined} parent
 * @property {string} profile
 * @property {number} began
 * @property {number | undefined} ended
 * @property {string | undefined} reason why it ended
 * @property {number} denied
 * @property {Build[]} builds
 */

const MOST_RECORDS = 20_000;
const MOST_DENIALS = 5000;
const MOST_ENDED = 200;
const BUILD_OPERATIONS = new Set(["BuildPaths", "BuildPathsWithResults"]);

export class Model {
  constructor() {
    this.reset();
  }

  reset() {
    /** @type {AuditRecord[]} */
    this.records = [];
    /** @type {AuditRecord[]} */
    this.denials = [];
    /** @type {Map<string, Sandbox>} */
    this.sandboxes = new Map();
    /** The builds that run, by the intent to ask for them. @type {Map<number, Build[]>} */
    this.running = new Map();
    this.last = 0;
  }

  /** Records from before the first: they tell of sandboxes, builds and denials only. @param {AuditRecord[]} records */
  learn(records) {
    for (const record of records) {
      if (record.verdict === "deny") this.denials.push(record);
      this.note(record);
    }
  }

  /**
   * @param {AuditRecord[]} records
   * @returns {AuditRecord[]} those that are new
   */
  add(records) {
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

  /** Takes the sandboxes that are open from the service's own list. @param {any[]} open */
  live(open) {
    for (const told of open) {
      const sandbox = this.sandbox(told.id);
      sandbox.outer = told.derivation ?? undefined;
      sandbox.socket = told.socket ?? undefined;
      sandbox.parent = told.parent ?? undefined;
      sandbox.profile = told.profile;
      sandbox.began = Date.parse(told.since);
      sandbox.ended = undefined;
    }
    const ids = new Set(open.map(({ id }) => id));
    for (const sandbox of this.sandboxes.values()) if (!ids.has(sandbox.id)) sandbox.ended ??= Date.now();
  }

  /** @param {string} id */
  sandbox(id) {
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
        reason: undefined,
        denied: 0,
        builds: [],
      };
      this.sandboxes.set(id, sandbox);
    }
    return sandbox;
  }

  /** @param {AuditRecord} record */
  note(record) {
    if (record.sandbox === undefined) return;
    const known = this.sandboxes.has(record.sandbox);
    const sandbox = this.sandbox(record.sandbox);
    const time = Date.parse(record.time);
    if (!known) sandbox.began = time;
    sandbox.outer ??= record.outer;
    if (record.kind === "sandbox") this.noteSandbox(sandbox, record, time);
    else if (record.kind === "build") this.noteBuild(sandbox, record, time);
    else if (record.kind === "intent") this.noteIntent(sandbox, record, time);
    else if (record.kind === "request") {
      if (record.verdict === "deny") sandbox.denied += record.count;
      if (record.intent !== undefined) this.finish(record.intent, time + (record.durationUs ?? 0) / 1000);
    }
  }

  /** @param {Sandbox} sandbox @param {AuditRecord} record @param {number} time */
  noteSandbox(sandbox, record, time) {
    if (record.op === "begin") {
      sandbox.began = time;
      sandbox.parent = record.detail?.parent;
      sandbox.profile = record.detail?.profile ?? "";
    } else if (record.op === "end") {
      sandbox.ended = time;
      sandbox.reason = record.reason?.replace(/^this sandbox has ended: /, "");
    }
  }

  /** @param {Sandbox} sandbox @param {AuditRecord} record @param {number} time */
  noteIntent(sandbox, record, time) {
    if (!BUILD_OPERATIONS.has(record.op)) return;
    const builds = record.subjects.map((subject) => ({
      derivation: subject.replace(/[!^].*$/, ""),
      started: time,
      took: undefined,
      state: /** @type {const} */ ("running"),
      intent: record.seq,
    }));
    sandbox.builds.push(...builds);
    this.running.set(record.seq, builds);
  }

  /** @param {Sandbox} sandbox @param {AuditRecord} record @param {number} time */
  noteBuild(sandbox, record, time) {
    const derivation = record.detail?.derivation ?? record.subjects[0] ?? "";
    const intent = record.detail?.request ?? 0;
    let build = this.running.get(intent)?.find((each) => each.derivation === derivation);
    if (build === undefined) {
      build = { derivation, started: time, took: 0, state: "done", intent };
      sandbox.builds.push(build);
    }
    build.took = (record.durationUs ?? 0) / 1000;
    build.state = record.upstreamError === undefined ? "done" : "failed";
  }

  /** The request is over, and with it its builds. @param {number} intent @param {number} time */
  finish(intent, time) {
    for (const build of this.running.get(intent) ?? []) {
      if (build.state !== "running") continue;
      build.state = "failed";
      build.took = time - build.started;
    }
    this.running.delete(intent);
  }

  /** Of sandboxes that ended, only the newest are kept. */
  forget() {
    const ended = [...this.sandboxes.values()].filter((sandbox) => sandbox.ended !== undefined);
    if (ended.length <= MOST_ENDED * 1.2) return;
    ended.sort((a, b) => (a.ended ?? 0) - (b.ended ?? 0));
    for (const { id } of ended.slice(0, ended.length - MOST_ENDED)) this.sandboxes.delete(id);
  }
}
