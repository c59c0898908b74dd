/** Text as man(7) wants it. */

/** Characters that mean something to roff, and those outside of ASCII, which not every terminal's manual could read. */
export function escaped(text: string): string {
  return text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replace(/^([.'])/gm, "\\&$1")
    .replace(
      /[^\x00-\x7f]/gu,
      (character) => `\\[u${character.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}]`,
    );
}

/** Prose with `code` in bold, and links as their texts. */
export function prose(text: string): string {
  return escaped(text)
    .replace(/\[([^\]\n]+)\]\([^)\s]+\)/g, "$1")
    .replace(/`([^`]+)`/g, "\\fB$1\\fR")
    .replace(/([.:;])\s+(?=\S)/g, "$1 ")
    .trim();
}

/** Lines as they are. */
export function literal(text: string): string {
  return `.EX\n${escaped(text)}\n.EE\n`;
}

/** `-c, --config <FILE>` with the words that are typed in bold, and the others in italics. */
export function term(text: string): string {
  return text
    .split(/(<[^>]+>|\[[^\]]+\])/)
    .map((part) => {
      if (/^[<[]/.test(part)) return `\\fI${escaped(part)}\\fR`;
      return escaped(part).replace(/\S*[^\s,]/g, (word) => `\\fB${word}\\fR`);
    })
    .join("");
}

export interface PageTitle {
  readonly name: string;
  readonly section: number;
  readonly summary: string;
  readonly version: string;
  /** `2026-11-26` */
  readonly date: string;
}

const volumes: Readonly<Record<number, string>> = {
  1: "User Commands",
  5: "File Formats",
  8: "System Administration",
};

export function heading({ name, section, summary, version, date }: PageTitle): string {
  const title = `.TH ${escaped(name.toUpperCase())} ${section} ${date} "nix\\-broker ${version}" "${volumes[section]}"`;
  return `${title}\n.SH NAME\n${escaped(name)} \\- ${escaped(summary)}\n`;
}

export function seeAlso(pages: readonly string[]): string {
  const all = pages.map((page) => {
    const [, name = "", section = ""] = /^(.*)\((\d)\)$/.exec(page) ?? [];
    return `.BR ${escaped(name)} (${section})`;
  });
  return `.SH "SEE ALSO"\n${all.join(" ,\n")}\n`;
}
