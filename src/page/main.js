// @ts-check
/** The page: takes what comes over the connection, and draws what has changed, once a frame at most. */
import { renderCharts, total } from "./chart.js";
import { Connection } from "./connection.js";
import { showDetails } from "./details.js";
import { brief, byId, element, safe } from "./dom.js";
import { listenToKeys, showHelp } from "./keys.js";
import { Model } from "./model.js";
import { Stream } from "./stream.js";
import { MOST_CHOSEN, renderTimeline } from "./timeline.js";
import { renderTree } from "./tree.js";

/** @typedef {import("./model.js").AuditRecord} AuditRecord */
/** @typedef {import("./chart.js").State} State */

const TOKEN_KEY = "nix-broker-token";
const THEME_KEY = "nix-broker-theme";
const MOST_STATES = 300;
const VIEWS = /** @type {const} */ (["denials", "requests", "timeline", "sandboxes"]);
const VERDICTS = ["", "forward", "answer", "deny"];
/** A running build's duration goes on without a record. */
const TREE_MS = 500;

const model = new Model();
/** @type {State[]} */
let states = [];
/** @type {(typeof VIEWS)[number]} */
let view = "denials";
/** @type {string | undefined} */
let chosen;
/** The records of the chosen sandbox, and those that came since they were asked for. @type {AuditRecord[]} */
let chosenRecords = [];
let only = false;
let words = /** @type {string[]} */ ([]);
let verdict = "";
let dirty = { tree: true, timeline: true, charts: true };
/** @type {Connection | undefined} */
let connection;

const details = /** @type {HTMLDialogElement} */ (byId("details"));
const help = /** @type {HTMLDialogElement} */ (byId("help"));
const gate = /** @type {HTMLDialogElement} */ (byId("gate"));
const search = /** @type {HTMLInputElement} */ (byId("search"));

/** @param {AuditRecord} record */
const open = (record) =>
  showDetails(details, record, (id) => {
    details.close();
    choose(id);
    show("timeline");
  });

/** @param {AuditRecord} record */
function matches(record) {
  if (only && record.sandbox !== chosen) return false;
  if (words.length === 0) return true;
  const text = [
    record.op,
    record.verdict ?? record.kind,
    record.reason,
    record.upstreamError,
    record.sandbox,
    record.outer,
    ...record.subjects,
  ]
    .join(" ")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

const denials = new Stream(byId("denials"), {
  empty: "Nothing was denied.",
  matches: (record) => record.verdict === "deny" && matches(record),
  open,
});
const requests = new Stream(byId("requests"), {
  empty: "No request yet, or none that matches.",
  // An intent is told again by its request.
  matches: (record) =>
    record.kind !== "intent" && (verdict === "" || record.verdict === verdict) && matches(record),
  open,
});

/** @param {any} message */
function take(message) {
  if (message.type === "hello") {
    if (!message.resumed) {
      model.reset();
      chosenRecords = [];
      model.learn(message.before);
      refilter();
    }
    states = message.history;
    byId("link").title = `nix-broker ${message.version}`;
    if (chosen !== undefined) connection?.ask({ type: "sandbox", id: chosen });
  } else if (message.type === "records") {
    const fresh = model.add(message.records);
    denials.add(fresh);
    requests.add(fresh);
    const ours = fresh.filter(({ sandbox }) => sandbox === chosen);
    if (chosen !== undefined && ours.length > 0) {
      chosenRecords.push(...ours);
      if (chosenRecords.length > MOST_CHOSEN * 1.2) chosenRecords = chosenRecords.slice(-MOST_CHOSEN);
      dirty.timeline = true;
    }
    dirty.tree = true;
  } else if (message.type === "state") {
    states.push(message.state);
    if (states.length > MOST_STATES) states.shift();
    model.live(message.sandboxes);
    dirty = { tree: true, timeline: true, charts: true };
  } else if (message.type === "sandbox" && message.id === chosen) {
    const last = message.records.at(-1)?.seq ?? 0;
    chosenRecords = [...message.records, ...chosenRecords.filter(({ seq }) => seq > last)];
    dirty.timeline = true;
  }
  schedule();
}

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

let treeDrawn = 0;
let timelineDrawn = 0;
function draw() {
  const now = performance.now();
  if (dirty.tree && now - treeDrawn > 100) {
    treeDrawn = now;
    dirty.tree = false;
    renderTree(byId("tree"), model, chosen);
  }
  if (dirty.timeline && view === "timeline" && now - timelineDrawn > 250) {
    timelineDrawn = now;
    dirty.timeline = false;
    renderTimeline(
      byId("timeline"),
      chosen === undefined ? undefined : model.sandboxes.get(chosen),
      chosenRecords,
      open,
    );
  }
  if (dirty.charts) {
    dirty.charts = false;
    renderCharts(byId("charts"), states);
    drawTiles();
  }
  byId("denial-count").textContent = denials.rows.length > 0 ? brief(denials.rows.length) : "";
  byId("request-count").textContent = requests.rows.length > 0 ? brief(requests.rows.length) : "";
}

function drawTiles() {
  const state = states.at(-1);
  if (state === undefined) return;
  const running = [...model.sandboxes.values()].filter(({ ended }) => ended === undefined).length;
  byId("sandbox-count").textContent = String(running);
  /** @type {[string, string, string?][]} */
  const tiles = [
    ["sandboxes", String(running)],
    ["builds running", String(state.builds.running)],
    ["built", `${brief(state.builds.succeeded)}`],
    ["failed", brief(state.builds.failed), state.builds.failed > 0 ? "warn" : undefined],
    ["requests", brief(total(state))],
    ["denied", brief(state.requests.deny), state.requests.deny > 0 ? "deny" : undefined],
    ["records", brief(state.audit.head)],
  ];
  if (state.audit.error !== null) tiles.push(["audit", safe(state.audit.error), "deny"]);
  byId("tiles").replaceChildren(
    ...tiles.map(([name, value, tone]) =>
      element("div", { "data-tone": tone }, element("dt", {}, name), element("dd", {}, value)),
    ),
  );
}

/** @param {(typeof VIEWS)[number]} name */
function show(name) {
  view = name;
  document.body.dataset.view = name;
  for (const each of ["denials", "requests", "timeline"]) byId(each).hidden = each !== name;
  for (const tab of document.querySelectorAll("[data-view][role=tab]"))
    tab.setAttribute("aria-selected", String(tab instanceof HTMLElement && tab.dataset.view === name));
  byId("filters").hidden = name === "timeline" || name === "sandboxes";
  byId("verdicts").hidden = name !== "requests";
  denials.schedule();
  requests.schedule();
  dirty.timeline = true;
  timelineDrawn = 0;
  schedule();
}

/** @param {string} id */
function choose(id) {
  if (id !== chosen) {
    chosen = id;
    chosenRecords = model.records.filter(({ sandbox }) => sandbox === id);
    connection?.ask({ type: "sandbox", id });
  }
  dirty.tree = dirty.timeline = true;
  treeDrawn = timelineDrawn = 0;
  updateOnly();
  schedule();
}

function refilter() {
  words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  denials.set(model.denials);
  requests.set(model.records);
  schedule();
}

function updateOnly() {
  const button = byId("only");
  button.hidden = chosen === undefined;
  button.textContent = only ? "this sandbox ✕" : "only the chosen sandbox";
  button.setAttribute("aria-pressed", String(only));
  if (only) refilter();
}

function toggleOnly() {
  if (chosen === undefined) return;
  only = !only;
  updateOnly();
  refilter();
}

/** @param {string} next */
function setVerdict(next) {
  verdict = next;
  for (const button of document.querySelectorAll("[data-verdict][aria-pressed]"))
    button.setAttribute(
      "aria-pressed",
      String(button instanceof HTMLElement && button.dataset.verdict === next),
    );
  refilter();
}

/** @param {number} step */
function moveInTree(step) {
  const rows = /** @type {HTMLElement[]} */ ([...byId("tree").querySelectorAll("[data-sandbox]")]);
  const at = rows.findIndex((row) => row.dataset.sandbox === chosen);
  const row = rows[at < 0 ? 0 : Math.max(0, Math.min(rows.length - 1, at + step))];
  if (row?.dataset.sandbox === undefined) return;
  row.scrollIntoView({ block: "nearest" });
  choose(row.dataset.sandbox);
}

/** The list that keys move in; none: the tree. */
const list = () => (view === "denials" ? denials : view === "requests" ? requests : undefined);
let inTree = false;

/** @param {number} step */
const move = (step) => (inTree || list() === undefined ? moveInTree(step) : list()?.move(step));

/** @param {(typeof VIEWS)[number]} name */
const showList = (name) => {
  inTree = false;
  search.blur();
  show(name);
  if (list()?.selected === undefined) list()?.move(0);
};

function flipTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  setTheme(now === "dark" ? "light" : "dark");
}

/** @param {string} theme */
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem(THEME_KEY, theme);
}

listenToKeys(
  {
    d: () => showList("denials"),
    r: () => showList("requests"),
    s: () => {
      inTree = true;
      if (matchMedia("(max-width: 760px)").matches) show("sandboxes");
      moveInTree(0);
    },
    l: () => show("timeline"),
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    g: () => {
      const stream = list();
      if (stream === undefined) return;
      stream.selected = undefined;
      stream.move(0);
    },
    o: toggleOnly,
    f: () => setVerdict(VERDICTS[(VERDICTS.indexOf(verdict) + 1) % VERDICTS.length] ?? ""),
    t: flipTheme,
    "/": () => {
      if (list() === undefined) show("requests");
      search.focus();
      search.select();
    },
    Enter: () => {
      if (inTree || list() === undefined) show("timeline");
      else list()?.openSelected();
    },
    "?": () => showHelp(help),
  },
  () => search.blur(),
);

for (const tab of document.querySelectorAll("[data-view][role=tab]"))
  tab.addEventListener("click", () => {
    inTree = false;
    const name = VIEWS.find((each) => tab instanceof HTMLElement && each === tab.dataset.view);
    if (name !== undefined) show(name);
  });
// A button that was clicked gives the keys back to the list.
document.addEventListener("click", ({ target, detail }) => {
  const button = target instanceof Element ? target.closest("button") : null;
  if (detail > 0 && document.querySelector("dialog[open]") === null) button?.blur();
});
byId("verdicts").addEventListener("click", ({ target }) => {
  if (target instanceof HTMLElement && target.dataset.verdict !== undefined)
    setVerdict(target.dataset.verdict);
});
byId("tree").addEventListener("click", ({ target }) => {
  const row = target instanceof Element ? target.closest("[data-sandbox]") : null;
  if (!(row instanceof HTMLElement) || row.dataset.sandbox === undefined) return;
  inTree = true;
  choose(row.dataset.sandbox);
  show("timeline");
});
byId("only").addEventListener("click", toggleOnly);
byId("theme").addEventListener("click", flipTheme);
byId("help-button").addEventListener("click", () => showHelp(help));
search.addEventListener("input", refilter);
setInterval(() => {
  dirty.tree = true;
  if (chosen !== undefined && model.sandboxes.get(chosen)?.ended === undefined) dirty.timeline = true;
  schedule();
}, TREE_MS);

/** @param {string} token */
function start(token) {
  connection?.close();
  connection = new Connection(token, {
    after: () => model.last,
    message: take,
    state(state) {
      const link = byId("link");
      link.dataset.state = state;
      link.textContent = state === "live" ? "live" : state === "away" ? "reconnecting…" : "token refused";
      if (state === "live") sessionStorage.setItem(TOKEN_KEY, token);
      else if (state === "refused") {
        sessionStorage.removeItem(TOKEN_KEY);
        gate.showModal();
      }
    },
  });
}

gate.addEventListener("close", () => {
  const input = /** @type {HTMLInputElement} */ (byId("token"));
  if (input.value === "") gate.showModal();
  else start(input.value.trim());
  input.value = "";
});

/** The token of the page's address, which is then taken out of it, or the one that this tab knows. */
function givenToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given !== null) history.replaceState(undefined, "", location.pathname);
  return given ?? sessionStorage.getItem(TOKEN_KEY);
}

const theme = localStorage.getItem(THEME_KEY);
if (theme !== null) document.documentElement.dataset.theme = theme;
show("denials");
const token = givenToken();
if (token === null) gate.showModal();
else start(token);
