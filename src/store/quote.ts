const LONGEST = 120;

/** A text for a message: quoted, escaped and cut, because most texts here come from untrusted parties. */
export function quote(text: string): string {
  if (text.length <= LONGEST) return JSON.stringify(text);
  return `${JSON.stringify(text.slice(0, LONGEST))} (and ${text.length - LONGEST} characters more)`;
}
