// @ts-check
/** A list of records, newest first, of any length: only the rows in sight are elements. */
import { clock, duration, element, pathHash, pathName, safe } from "./dom.js";

/** @typedef {import("./model.js").AuditRecord} AuditRecord */

const MOST_ROWS = 20_000;
/** Rows beyond what is in sight, above and below. */
const MARGIN = 6;

export class Stream {
  /**
   * @param {HTMLElement} host
   * @param {{ empty: string, matches: (record: AuditRecord) => boolean, open: (record: AuditRecord) => void }} options
   */
  constructor(host, options) {
    this.host = host;
    this.options = options;
    /** Oldest first. @type {AuditRecord[]} */
    this.rows = [];
    /** The place in the chain of the row that is selected. @type {number | undefined} */
    this.selected = undefined;
    this.scroller = element("div", { class: "scroll list", tabindex: 0, role: "listbox" });
    this.space = element("div", { class: "space" });
    this.note = element("p", { class: "empty" }, options.empty);
    this.scroller.append(this.space, this.note);
    host.append(this.scroller);
    this.scroller.addEventListener("scroll", () => this.schedule(), { passive: true });
    new ResizeObserver(() => this.schedule()).observe(this.scroller);
    this.scroller.addEventListener("click", ({ target }) => {
      const row = target instanceof Element ? target.closest("[data-seq]") : null;
      if (row instanceof HTMLElement) this.choose(Number(row.dataset.seq), true);
    });
  }

  get rowHeight() {
    return matchMedia("(max-width: 760px)").matches ? 52 : 30;
  }

  /** Newest first. @param {number} index @returns {AuditRecord | undefined} */
  at(index) {
    return this.rows[this.rows.length - 1 - index];
  }

  /** @param {AuditRecord[]} records new ones, in their order */
  add(records) {
    const fresh = records.filter(this.options.matches);
    if (fresh.length === 0) return;
    // Whoever has scrolled down reads on: what they see stays where it is.
    const reading = this.scroller.scrollTop > this.rowHeight / 2;
    this.rows.push(...fresh);
    if (this.rows.length > MOST_ROWS * 1.2) this.rows = this.rows.slice(-MOST_ROWS);
    if (reading) this.shift = (this.shift ?? 0) + fresh.length * this.rowHeight;
    this.schedule();
  }

  /** Anew, after the filter has changed. @param {AuditRecord[]} records */
  set(records) {
    this.rows = records.filter(this.options.matches);
    this.scroller.scrollTop = 0;
    this.schedule();
  }

  schedule() {
    if (this.scheduled || this.host.hidden) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.render();
    });
  }

  render() {
    const { scroller, rowHeight } = this;
    this.note.hidden = this.rows.length > 0;
    this.space.style.height = `${this.rows.length * rowHeight}px`;
    if (this.shift) {
      scroller.scrollTop += this.shift;
      this.shift = 0;
    }
    const first = Math.max(0, Math.floor(scroller.scrollTop / rowHeight) - MARGIN);
    const last = Math.min(
      this.rows.length,
      Math.ceil((scroller.scrollTop + scroller.clientHeight) / rowHeight) + MARGIN,
    );
    const rows = [];
    for (let index = first; index < last; index++) {
      const record = this.at(index);
      if (record === undefined) continue;
      const row = this.row(record);
      row.style.transform = `translateY(${index * rowHeight}px)`;
      rows.push(row);
    }
    this.space.replaceChildren(...rows);
  }

  /** @param {AuditRecord} record */
  row(record) {
    const verdict = record.verdict ?? record.kind;
    const subject = record.subjects[0] ?? "";
    const more = record.subjects.length > 1 ? ` +${record.subjects.length - 1}` : "";
    const why = [record.reason, record.upstreamError].filter(Boolean).join(" · ");
    const chosen = record.seq === this.selected;
    return element(
      "div",
      {
        class: `row${chosen ? " chosen" : ""}`,
        role: "option",
        "aria-selected": String(chosen),
        "data-seq": record.seq,
        "data-verdict": verdict,
      },
      element("time", {}, clock(record.time)),
      element("span", { class: "verdict" }, verdict),
      element("span", { class: "op" }, safe(record.op), record.count > 1 ? ` ×${record.count}` : ""),
      element(
        "span",
        { class: "subject" },
        element("b", {}, safe(pathName(subject)) + more),
        element("i", {}, safe(pathHash(subject))),
      ),
      element("span", { class: "why" }, safe(why)),
      element(
        "span",
        { class: "took" },
        record.durationUs === undefined ? "" : duration(record.durationUs / 1000),
      ),
    );
  }

  /** @param {number} seq @param {boolean} open */
  choose(seq, open) {
    this.selected = seq;
    this.render();
    const record = this.rows.find((each) => each.seq === seq);
    if (open && record !== undefined) this.options.open(record);
  }

  /** Selects the first, next or previous row. @param {number} step */
  move(step) {
    const now = this.rows.findIndex(({ seq }) => seq === this.selected);
    const index = now < 0 ? 0 : this.rows.length - 1 - now + step;
    const record = this.at(Math.max(0, Math.min(this.rows.length - 1, index)));
    if (record === undefined) return;
    const place = Math.max(0, Math.min(this.rows.length - 1, index));
    const { scroller, rowHeight } = this;
    const top = place * rowHeight;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top + rowHeight > scroller.scrollTop + scroller.clientHeight)
      scroller.scrollTop = top + rowHeight - scroller.clientHeight;
    this.choose(record.seq, false);
  }

  openSelected() {
    if (this.selected === undefined) this.move(0);
    if (this.selected !== undefined) this.choose(this.selected, true);
  }
}
