// @ts-check
/** What keys do. */
import { element } from "./dom.js";

/** @type {[keys: string[], what: string][]} */
const HELP = [
  [["d"], "denials"],
  [["r"], "requests"],
  [["s"], "sandboxes"],
  [["l"], "timeline of the chosen sandbox"],
  [["j", "↓"], "next"],
  [["k", "↑"], "previous"],
  [["Enter"], "all of it; of a sandbox: its timeline"],
  [["o"], "only what the chosen sandbox did; again: all"],
  [["/"], "search"],
  [["f"], "next verdict"],
  [["g"], "to the newest"],
  [["t"], "dark or light"],
  [["Esc"], "close, or leave the search"],
  [["?"], "these keys"],
];

/** @param {HTMLDialogElement} dialog */
export function showHelp(dialog) {
  const list = element("dl");
  for (const [keys, what] of HELP)
    list.append(element("dt", {}, ...keys.map((key) => element("kbd", {}, key))), element("dd", {}, what));
  dialog.replaceChildren(
    element("h2", {}, "Keys"),
    list,
    element("form", { method: "dialog" }, element("button", {}, "Close (Esc)")),
  );
  if (!dialog.open) dialog.showModal();
}

/**
 * @param {Record<string, () => void>} actions by key
 * @param {() => void} leave what Escape does in the search
 */
export function listenToKeys(actions, leave) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { target } = event;
    if (target instanceof HTMLInputElement) {
      if (event.key === "Escape" || event.key === "Enter") leave();
      return;
    }
    // The dialog has keys of its own.
    if (document.querySelector("dialog[open]") !== null) return;
    if (event.key === "Enter" && target instanceof HTMLButtonElement && target.dataset.sandbox === undefined)
      return;
    const action = actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
}
