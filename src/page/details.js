// @ts-check
/** All of one record. */
import { duration, element, safe, size } from "./dom.js";

/** @typedef {import("./model.js").AuditRecord} AuditRecord */

/**
 * @param {HTMLElement} dialog
 * @param {AuditRecord} record
 * @param {(id: string) => void} showSandbox
 */
export function showDetails(dialog, record, showSandbox) {
  const list = element("dl");
  /** @param {string} name @param {...(string | Node | undefined)} values */
  const line = (name, ...values) => {
    const given = values.filter((value) => value !== undefined && value !== "");
    if (given.length === 0) return;
    list.append(element("dt", {}, name));
    for (const value of given)
      list.append(element("dd", {}, typeof value === "string" ? safe(value) : value));
  };
  line("reason", record.reason);
  line(
    "upstream said",
    record.upstreamError === undefined ? undefined : element("pre", {}, lines(record.upstreamError)),
  );
  line("subjects", ...record.subjects);
  line("time", record.time);
  line("took", record.durationUs === undefined ? undefined : duration(record.durationUs / 1000));
  line(
    "bytes",
    record.bytesIn === undefined
      ? undefined
      : `${size(record.bytesIn)} in, ${size(record.bytesOut ?? 0)} out`,
  );
  line("times", record.count > 1 ? String(record.count) : undefined);
  line("sandbox", record.sandbox === undefined ? undefined : sandboxButton(record.sandbox, showSandbox));
  line("outer build", record.outer);
  line("asker", asker(record));
  line("intent", record.intent === undefined ? undefined : `record ${record.intent}`);
  line(
    "detail",
    record.detail === undefined
      ? undefined
      : element("pre", {}, lines(JSON.stringify(record.detail, undefined, 2))),
  );
  line("record", `${record.seq}`);
  line("hash", record.hash);
  const verdict = record.verdict ?? record.kind;
  dialog.replaceChildren(
    element(
      "h2",
      { "data-verdict": verdict },
      element("span", { class: "verdict" }, verdict),
      ` ${safe(record.op)}`,
    ),
    list,
    element("form", { method: "dialog" }, element("button", { autofocus: "" }, "Close (Esc)")),
  );
  if (dialog instanceof HTMLDialogElement && !dialog.open) dialog.showModal();
}

/** @param {string} id @param {(id: string) => void} showSandbox */
function sandboxButton(id, showSandbox) {
  const button = element("button", { type: "button", class: "as-link" }, id);
  button.addEventListener("click", () => showSandbox(id));
  return button;
}

/** @param {AuditRecord} record */
function asker({ uid, pid, connection, protocol }) {
  const parts = [
    uid === undefined ? undefined : `uid ${uid}`,
    pid === undefined ? undefined : `pid ${pid}`,
    connection === undefined ? undefined : `connection ${connection}`,
    protocol === undefined ? undefined : `protocol ${protocol}`,
  ];
  return parts.filter(Boolean).join(", ") || undefined;
}

/** Safe, but for its line ends. @param {string} text */
function lines(text) {
  return text.split("\n").map(safe).join("\n");
}
