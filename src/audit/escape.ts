/**
 * Makes text of clients harmless for terminals: what moves the cursor, changes colours, reorders or hides text is shown
 * as an escape instead. Whatever is left prints as itself.
 */

// Controls (C0, DEL, C1), line and paragraph separators, marks that change direction, and characters that take no room:
// soft hyphen, zero-width ones, invisible operators, byte order mark, interlinear marks, tags, lone surrogates.
const UNSAFE =
  /[\p{Cc}\p{Cs}\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}]/gu;

const SHORT: Readonly<Record<string, string>> = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escapeCharacter(character: string): string {
  const short = SHORT[character];
  if (short !== undefined) return short;
  const code = character.codePointAt(0)!;
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}

/** One line of text, safe to print. A backslash is doubled, so that an escape cannot be feigned. */
export function escapeText(text: string): string {
  return text.replaceAll("\\", "\\\\").replace(UNSAFE, escapeCharacter);
}
