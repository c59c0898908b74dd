/** What keys do. */

/** The keys and what each does, for the reader. */
export const KEYS: readonly (readonly [keys: readonly string[], what: string])[] = [
  [["d"], "denials"],
  [["r"], "requests"],
  [["s"], "sandboxes"],
  [["l"], "timeline of the chosen sandbox"],
  [["j", "↓"], "next"],
  [["k", "↑"], "previous"],
  [["Enter"], "open the record; on a sandbox: its timeline"],
  [["o"], "show only the chosen sandbox, or all again"],
  [["/"], "search"],
  [["f"], "show the next verdict only"],
  [["g"], "go to the newest"],
  [["t"], "dark or light"],
  [["Esc"], "close, or leave the search"],
  [["?"], "these keys"],
];

/**
 * @param actions by key
 * @param leave what Escape and Enter do in the search
 */
export function listenToKeys(actions: Readonly<Record<string, () => void>>, leave: () => void): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { target } = event;
    if (target instanceof HTMLInputElement) {
      if (event.key === "Escape" || event.key === "Enter") leave();
      return;
    }
    // The dialog has keys of its own.
    if (document.querySelector("dialog[open]") !== null) return;
    // The browser presses the button.
    if (event.key === "Enter" && target instanceof HTMLButtonElement) return;
    const action = actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
}
