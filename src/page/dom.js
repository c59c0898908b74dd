// @ts-check
/** Elements and texts. What clients wrote only ever becomes text, with what could mislead the eye made visible. */

// Controls, marks that change direction, characters that take no room. The same as in audit/escape.ts.
const UNSAFE =
  /[\p{Cc}\p{Cs}\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

/**
 * @param {string} text
 * @returns {string}
 */
export function safe(text) {
  return text.replace(UNSAFE, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/**
 * @param {string} tag
 * @param {Record<string, string | number | undefined>} [attributes]
 * @param {...(Node | string | undefined)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  return /** @type {HTMLElement} */ (fill(document.createElement(tag), attributes, children));
}

/**
 * @param {string} tag
 * @param {Record<string, string | number | undefined>} [attributes]
 * @param {...(Node | string | undefined)} children
 * @returns {SVGElement}
 */
export function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return /** @type {SVGElement} */ (fill(made, attributes, children));
}

/**
 * @param {Element} made
 * @param {Record<string, string | number | undefined>} attributes
 * @param {(Node | string | undefined)[]} children
 */
function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes))
    if (value !== undefined) made.setAttribute(name, String(value));
  made.append(...children.filter((child) => child !== undefined));
  return made;
}

/**
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`#${id} is missing`);
  return /** @type {T} */ (found);
}

/** @param {string} path */
export function pathName(path) {
  const base = path.slice(path.lastIndexOf("/") + 1);
  return /^[0-9a-z]{32}-/.test(base) ? base.slice(33) : base;
}

/** The outer build's name, or where the socket is. @param {{ outer?: string, socket?: string, id: string }} sandbox */
export function sandboxName({ outer, socket, id }) {
  if (outer !== undefined) return pathName(outer).replace(/\.drv$/, "");
  return socket === undefined ? id : socket.split("/").slice(-2).join("/");
}

/** The hash part of a store path, cut short. @param {string} path */
export function pathHash(path) {
  const base = path.slice(path.lastIndexOf("/") + 1);
  return /^[0-9a-z]{32}-/.test(base) ? base.slice(0, 7) : "";
}

/** @param {number} milliseconds */
export function duration(milliseconds) {
  if (milliseconds < 0.95) return `${Math.max(1, Math.round(milliseconds * 1000))} µs`;
  if (milliseconds < 1000)
    return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** @param {number} count */
export function brief(count) {
  if (count < 10_000) return String(Math.round(count * 10) / 10).replace(/\.\d$/, count < 10 ? "$&" : "");
  return count < 1_000_000 ? `${Math.round(count / 1000)} k` : `${(count / 1_000_000).toFixed(1)} M`;
}

/** @param {number} bytes */
export function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit++;
  }
  return `${bytes < 10 && unit > 0 ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

/** @param {string} iso */
export function clock(iso) {
  const time = new Date(iso);
  return `${time.toLocaleTimeString([], { hour12: false })}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}
