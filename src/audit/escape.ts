/**
 * Makes text from clients harmless for terminals: anything that moves the cursor, changes colours, reorders
 * or hides text is shown as an escape instead. Everything else prints as itself.
 */

// Controls (C0, DEL, C1), lone surrogates, line and paragraph separators, marks that change direction, interlinear marks, and
// whatever takes no room, or is blank: zero-width characters, fillers, variation selectors, tags.
const UNSAFE =
  /[\p{Cc}\p{Cs}\p{Default_Ignorable_Code_Point}\u2028-\u202e\u2800\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escapeCharacter(character: string): string {
  const short = SHORT[character];
  if (short !== undefined) return short;
  const code = character.codePointAt(0)!;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}

/**
 * JSON with the same characters escaped as JSON does it, so that it means the same: `JSON.stringify` leaves some of those that
 * move a terminal's cursor, and line separators, at which Node's `readline` would cut a record in two.
 */
export function jsonText(value: unknown, indent?: number): string {
  return escapeJson(JSON.stringify(value, undefined, indent));
}

/** The same of JSON that somebody else made, with its newlines. */
export function escapeJson(json: string): string {
  return json.replace(UNSAFE, (character) => (character === "\n" ? character : escapeUnits(character)));
}

function escapeUnits(character: string): string {
  return character
    .split("")
    .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    .join("");
}

/** One line of text, safe to print. A backslash is doubled, so that an escape cannot be faked. */
export function escapeText(text: string): string {
  return text.replaceAll("\\", "\\\\").replace(UNSAFE, escapeCharacter);
}
