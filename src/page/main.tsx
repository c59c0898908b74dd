/** The page's program: what comes over the connection and what the reader does change the state, which is then drawn. */
import { render } from "preact";
import { type Actions, App } from "./app.tsx";
import { Connection } from "./connection.ts";
import { listenToKeys } from "./keys.ts";
import { PageState } from "./page-state.ts";
import { Painter } from "./painter.ts";
import { darkOrLight, givenToken, keepTheme, keepToken } from "./remembered.ts";

let connection: Connection | undefined;
const state = new PageState((id) => connection?.ask({ type: "sandbox", id }));
const painter = new Painter(() =>
  render(<App state={state} actions={actions} now={Date.now()} />, document.body),
);

const actions: Actions = {
  act(change) {
    change();
    painter.drawNow();
  },
  flipTheme: () => keepTheme(darkOrLight() === "dark" ? "light" : "dark"),
  start,
};

function start(token: string): void {
  connection?.close();
  state.gate = false;
  connection = new Connection(token, {
    after: () => state.model.last,
    message(message) {
      state.take(message);
      painter.drawSoon();
    },
    state(link) {
      if (link === state.link) return;
      state.link = link;
      if (link === "live") keepToken(token);
      else if (link === "refused") {
        keepToken(undefined);
        state.gate = true;
      }
      painter.drawSoon();
    },
  });
}

function search(): HTMLInputElement | null {
  return document.querySelector<HTMLInputElement>("#search");
}

/** Chooses the sandbox so many rows below the chosen one, or the first. A row that has the focus passes it on. */
function moveInTree(step: number): void {
  const rows = [...document.querySelectorAll<HTMLElement>("#tree [data-sandbox]")];
  const at = rows.findIndex(({ dataset }) => dataset.sandbox === state.chosen);
  const row = rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + step))];
  if (row?.dataset.sandbox === undefined) return;
  if (document.activeElement instanceof HTMLElement && rows.includes(document.activeElement)) row.focus();
  row.scrollIntoView({ block: "nearest" });
  state.choose(row.dataset.sandbox);
}

function move(step: number): void {
  if (state.inTree || state.list === undefined) moveInTree(step);
  else state.list.move(step);
}

function showList(view: "denials" | "requests"): void {
  // Enter is the list's from now on, not that of a button.
  if (document.activeElement instanceof HTMLElement) document.activeElement.blur();
  state.showList(view);
}

const keys: Readonly<Record<string, () => void>> = {
  d: () => showList("denials"),
  r: () => showList("requests"),
  s() {
    state.inTree = true;
    if (matchMedia("(max-width: 760px)").matches) state.view = "sandboxes";
    moveInTree(0);
  },
  l() {
    state.view = "timeline";
  },
  j: () => move(1),
  ArrowDown: () => move(1),
  k: () => move(-1),
  ArrowUp: () => move(-1),
  g: () => state.list?.moveToTop(),
  o: () => state.toggleOnly(),
  f: () => state.nextVerdict(),
  t: actions.flipTheme,
  "/"() {
    if (state.list === undefined) state.view = "requests";
    // What is hidden cannot be focused.
    painter.drawNow();
    search()?.focus();
    search()?.select();
  },
  Enter() {
    if (state.inTree || state.list === undefined) state.view = "timeline";
    else state.openSelected();
  },
  "?"() {
    state.help = true;
  },
};

listenToKeys(
  Object.fromEntries(Object.entries(keys).map(([key, change]) => [key, () => actions.act(change)])),
  () => search()?.blur(),
);

document.addEventListener("click", ({ target, detail }) => {
  if (!(target instanceof Element)) return;
  const { seq } = target.closest<HTMLElement | SVGElement>("[data-seq]")?.dataset ?? {};
  const { sandbox } = target.closest<HTMLElement>("#tree [data-sandbox]")?.dataset ?? {};
  if (seq !== undefined) actions.act(() => state.open(Number(seq)));
  else if (sandbox !== undefined)
    actions.act(() => {
      state.inTree = true;
      state.showTimelineOf(sandbox);
    });
  // A button that was clicked with a pointer gives the keys back to the list.
  if (detail > 0 && document.querySelector("dialog[open]") === null)
    target.closest<HTMLElement>("button")?.blur();
});

const token = givenToken();
if (token === undefined) state.gate = true;
else start(token);
painter.drawNow();
