/** What the page shows: what it knows, and what its reader has chosen. Components read it; events call its methods. */
import type { RecordJson } from "../audit/json-line.ts";
import type { Verdict } from "../audit/record.ts";
import type { ServiceMessage, WebState } from "../service/web/messages.ts";
import { Model, type Sandbox } from "./model.ts";
import { RecordRows } from "./record-rows.ts";
import { searchText } from "./record-text.ts";

export const VIEWS = ["denials", "requests", "timeline", "sandboxes"] as const;
export type View = (typeof VIEWS)[number];

/** The verdicts that requests are filtered by; "" for all. */
export const VERDICT_CHOICES = ["", "forward", "answer", "deny"] as const satisfies (Verdict | "")[];
export type VerdictChoice = (typeof VERDICT_CHOICES)[number];

export type Link = "connecting" | "live" | "away" | "refused";

const MOST_STATES = 300;
/** Records of the chosen sandbox: as many as the service sends of one. */
export const MOST_CHOSEN = 5000;

export class PageState {
  readonly model = new Model();
  /** The last minutes, oldest first. */
  history: readonly WebState[] = [];
  version = "";
  link: Link = "connecting";
  view: View = "denials";
  /** The id of the chosen sandbox. */
  chosen: string | undefined;
  /** Its records, and those that came since they were asked for. */
  chosenRecords: RecordJson[] = [];
  /** Whether the lists hold what the chosen sandbox did, and nothing else. */
  only = false;
  search = "";
  verdict: VerdictChoice = "";
  /** The record that is shown in full. */
  details: RecordJson | undefined;
  help = false;
  /** Whether the reader has to give a token. */
  gate = false;
  /** Whether keys move in the tree, not in the list. */
  inTree = false;
  readonly denials: RecordRows;
  readonly requests: RecordRows;
  /** Those of the search. */
  private words: readonly string[] = [];
  private readonly ask: (id: string) => void;

  /** @param ask asks the service for the records of a sandbox */
  constructor(ask: (id: string) => void) {
    this.ask = ask;
    this.denials = new RecordRows((record) => record.verdict === "deny" && this.matches(record));
    this.requests = new RecordRows(
      // What an intent says, its request says again.
      (record) =>
        record.kind !== "intent" &&
        (this.verdict === "" || record.verdict === this.verdict) &&
        this.matches(record),
    );
  }

  get chosenSandbox(): Sandbox | undefined {
    return this.chosen === undefined ? undefined : this.model.sandboxes.get(this.chosen);
  }

  /** The list that is shown, if one is. */
  get list(): RecordRows | undefined {
    return this.view === "denials" ? this.denials : this.view === "requests" ? this.requests : undefined;
  }

  take(message: ServiceMessage): void {
    switch (message.type) {
      case "hello":
        if (!message.resumed) {
          this.model.reset();
          this.chosenRecords = [];
          this.model.learn(message.before);
          this.refilter();
        }
        this.history = message.history;
        this.version = message.version;
        if (this.chosen !== undefined) this.ask(this.chosen);
        return;
      case "records": {
        const fresh = this.model.add(message.records);
        this.denials.add(fresh);
        this.requests.add(fresh);
        if (this.chosen === undefined) return;
        // What was asked for may be ahead of what comes by itself.
        const last = this.chosenRecords.at(-1)?.seq ?? 0;
        this.chosenRecords.push(...fresh.filter(({ sandbox, seq }) => sandbox === this.chosen && seq > last));
        if (this.chosenRecords.length > MOST_CHOSEN * 1.2)
          this.chosenRecords = this.chosenRecords.slice(-MOST_CHOSEN);
        return;
      }
      case "state":
        this.history = [...this.history, message.state].slice(-MOST_STATES);
        this.model.live(message.sandboxes);
        return;
      case "sandbox": {
        if (message.id !== this.chosen) return;
        const last = message.records.at(-1)?.seq ?? 0;
        this.chosenRecords = [...message.records, ...this.chosenRecords.filter(({ seq }) => seq > last)];
      }
    }
  }

  show(view: View): void {
    this.view = view;
  }

  /** Shows a list, with a row selected for the keys. */
  showList(view: "denials" | "requests"): void {
    this.inTree = false;
    this.view = view;
    if (this.list?.selected === undefined) this.list?.move(0);
  }

  choose(id: string): void {
    if (id === this.chosen) return;
    this.chosen = id;
    this.chosenRecords = this.model.records.filter(({ sandbox }) => sandbox === id);
    this.ask(id);
    if (this.only) this.refilter();
  }

  showTimelineOf(id: string): void {
    this.details = undefined;
    this.choose(id);
    this.view = "timeline";
  }

  toggleOnly(): void {
    if (this.chosen === undefined) return;
    this.only = !this.only;
    this.refilter();
  }

  setVerdict(verdict: VerdictChoice): void {
    this.verdict = verdict;
    this.refilter();
  }

  nextVerdict(): void {
    const next = (VERDICT_CHOICES.indexOf(this.verdict) + 1) % VERDICT_CHOICES.length;
    this.setVerdict(VERDICT_CHOICES[next] ?? "");
  }

  setSearch(text: string): void {
    this.search = text;
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.refilter();
  }

  /** Shows a record in full, and selects it in the list. */
  open(seq: number): void {
    if (this.list !== undefined) this.list.selected = seq;
    this.details =
      this.list?.rows.find((record) => record.seq === seq) ??
      this.chosenRecords.find((record) => record.seq === seq);
  }

  openSelected(): void {
    const { list } = this;
    if (list === undefined) return;
    if (list.selected === undefined) list.moveToTop();
    if (list.selected !== undefined) this.open(list.selected);
  }

  private matches(record: RecordJson): boolean {
    if (this.only && record.sandbox !== this.chosen) return false;
    if (this.words.length === 0) return true;
    const text = searchText(record);
    return this.words.every((word) => text.includes(word));
  }

  private refilter(): void {
    this.denials.set(this.model.denials);
    this.requests.set(this.model.records);
  }
}
