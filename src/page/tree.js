// @ts-check
/** The sandboxes, each with its inner builds, each of those with the sandbox that it has itself. */
import { duration, element, pathHash, pathName, safe, sandboxName } from "./dom.js";

/** @typedef {import("./model.js").Model} Model */
/** @typedef {import("./model.js").Sandbox} Sandbox */
/** @typedef {import("./model.js").Build} Build */

const MOST_BUILDS = 100;
const MOST_SANDBOXES = 150;

/**
 * @param {HTMLElement} host
 * @param {Model} model
 * @param {string | undefined} chosen the id of a sandbox
 */
export function renderTree(host, model, chosen) {
  const now = Date.now();
  const all = [...model.sandboxes.values()];
  /** @type {Map<string, Sandbox[]>} */
  const nested = new Map();
  for (const sandbox of all)
    if (sandbox.parent !== undefined && model.sandboxes.has(sandbox.parent))
      nested.set(sandbox.parent, [...(nested.get(sandbox.parent) ?? []), sandbox]);
  const roots = all
    .filter(({ parent }) => parent === undefined || !model.sandboxes.has(parent))
    .sort((a, b) => Number(a.ended !== undefined) - Number(b.ended !== undefined) || b.began - a.began)
    .slice(0, MOST_SANDBOXES);
  const seen = new Set();
  const shown = roots.map((root) => branch(root, undefined, nested, seen, chosen, now));
  if (shown.length === 0)
    shown.push(
      element("p", { class: "empty" }, "No sandbox yet. A build that asks for nix-broker gets one."),
    );
  const { scrollTop } = host;
  host.replaceChildren(...shown);
  host.scrollTop = scrollTop;
}

/**
 * @param {Sandbox} sandbox
 * @param {Build | undefined} build what it is the sandbox of, if that was asked for by name
 * @param {Map<string, Sandbox[]>} nested
 * @param {Set<string>} seen
 * @param {string | undefined} chosen
 * @param {number} now
 * @returns {HTMLElement}
 */
function branch(sandbox, build, nested, seen, chosen, now) {
  seen.add(sandbox.id);
  const children = (nested.get(sandbox.id) ?? []).filter(({ id }) => !seen.has(id));
  const left = new Set(children);
  const builds = sandbox.builds.slice(-MOST_BUILDS).map((build) => {
    const own = children.find((child) => left.has(child) && child.outer === build.derivation);
    if (own === undefined) return buildRow(build, now);
    left.delete(own);
    return branch(own, build, nested, seen, chosen, now);
  });
  const rest = [...left].map((child) => branch(child, undefined, nested, seen, chosen, now));
  const omitted = sandbox.builds.length - builds.length;
  return element(
    "div",
    { class: "branch" },
    sandboxRow(sandbox, build, chosen, now),
    element(
      "div",
      { class: "inner" },
      omitted > 0 ? element("p", { class: "note" }, `${omitted} earlier builds`) : undefined,
      ...builds,
      ...rest,
    ),
  );
}

/**
 * @param {Sandbox} sandbox
 * @param {Build | undefined} build
 * @param {string | undefined} chosen
 * @param {number} now
 */
function sandboxRow(sandbox, build, chosen, now) {
  const name = sandbox.outer ?? sandbox.socket ?? sandbox.id;
  const running = sandbox.ended === undefined;
  return element(
    "button",
    {
      type: "button",
      class: `node sandbox${sandbox.id === chosen ? " chosen" : ""}`,
      role: "treeitem",
      "data-sandbox": sandbox.id,
      "data-state": build?.state ?? (running ? "open" : "ended"),
      title: `${name}\nsandbox ${sandbox.id}${sandbox.reason === undefined ? "" : `\n${sandbox.reason}`}`,
    },
    element("span", { class: "state" }),
    element("b", {}, safe(sandboxName(sandbox))),
    element("i", {}, safe(pathHash(name) || sandbox.profile)),
    sandbox.denied > 0 ? element("span", { class: "denied" }, `${sandbox.denied} denied`) : undefined,
    element("span", { class: "took" }, duration((sandbox.ended ?? now) - sandbox.began)),
  );
}

/** @param {Build} build @param {number} now */
function buildRow(build, now) {
  return element(
    "div",
    { class: "node build", "data-state": build.state, title: build.derivation },
    element("span", { class: "state" }),
    element("span", {}, safe(pathName(build.derivation).replace(/\.drv$/, ""))),
    element("i", {}, safe(pathHash(build.derivation))),
    element("span", { class: "took" }, duration(build.took ?? now - build.started)),
  );
}
